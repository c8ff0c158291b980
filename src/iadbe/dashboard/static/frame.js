// What every page can do: switch its colours, ask the API, make elements, and say something in passing.

/** Make an element: properties, "data-…", "aria-…" and other attributes, listeners as functions; texts are never markup. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.replace(/^on/, ""), value);
    else if (name === "class") made.className = value;
    else if (name === "style") for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Ask the API for JSON; an error's message is the sentence that the server gave. */
export async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { ...options, headers: { Accept: "application/json", "X-IADBE": "1", ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.status === 204) return null;
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const wait = Number(answer.headers.get("Retry-After")) || 0; // seconds after which to ask again
    throw Object.assign(new Error(body.detail || `The server answered ${answer.status}.`), { status: answer.status, wait });
  }
  return body;
}

/** What the server has put into the page for its script, as <script type="application/json" id="…">. */
export function given(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Say something for a moment; screen readers say it too. */
export function toast(text, kind = "") {
  const said = el("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" }, text);
  document.querySelector(".toasts").append(said);
  setTimeout(() => said.remove(), kind === "bad" ? 9000 : 4000);
}

/** Put a loading, empty or error state into a place. */
export function state(place, kind, text) {
  const shown = { loading: ["loading", "status"], empty: ["empty", "status"], error: ["notice bad", "alert"] }[kind];
  place.replaceChildren(el("div", { class: shown[0], role: shown[1] }, text));
}

/** Write a number with so many digits after the point, a dash where there is none. */
export function digits(value, count = 3) {
  return value === null || value === undefined || Number.isNaN(value) ? "—" : value.toFixed(count).replace("-", "−");
}

/** Write a number with about so many digits that count. */
export function brief(value, count = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "—";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(count - 2).replace("-", "−");
  return String(Number(value.toPrecision(count))).replace("-", "−");
}

/** Say in which colours the page is: "light" or "dark". */
export function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/** Copy a text and say so. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("The browser does not let this page copy. Mark the text and copy it.", "bad");
  }
}

function changed() {
  document.dispatchEvent(new CustomEvent("themechange", { detail: theme() }));
}

const button = document.getElementById("theme");
if (button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = theme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("iadbe-theme", next);
    } catch {
      // then it is for this page alone
    }
    changed();
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
const strip = document.querySelector(".top nav"), here = strip?.querySelector("[aria-current]");
if (here) strip.scrollLeft = here.offsetLeft - strip.clientWidth / 3;
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  const source = event.target.closest?.("[data-copy]");
  if (source) copy(document.getElementById(source.dataset.copy).textContent);
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
