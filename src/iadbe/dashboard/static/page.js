// Shared by all pages: theme, API requests, DOM elements, notifications and number formats.

/** Create an element. Functions become listeners, other properties attributes; text is never parsed as markup. */
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

/** Request JSON from the API. An error's message is the server's sentence. */
export async function fetchJson(address, options = {}) {
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
    const wait = Number(answer.headers.get("Retry-After")) || 0; // seconds until a retry
    throw Object.assign(new Error(body.detail || `The server answered ${answer.status}.`), { status: answer.status, wait });
  }
  return body;
}

/** Read the JSON that the server has put into the page, as <script type="application/json" id="…">. */
export function pageData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Show a short notification; screen readers announce it. */
export function toast(text, kind = "") {
  const element = el("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" }, text);
  document.querySelector(".toasts").append(element);
  setTimeout(() => element.remove(), kind === "bad" ? 9000 : 4000);
}

/** Show a loading, empty or error state. */
export function showState(place, kind, text) {
  const shown = { loading: ["loading", "status"], empty: ["empty", "status"], error: ["notice bad", "alert"] }[kind];
  place.replaceChildren(el("div", { class: shown[0], role: shown[1] }, text));
}

/** Format a number with `count` decimals; a dash where there is none. */
export function digits(value, count = 3) {
  return value === null || value === undefined || Number.isNaN(value) ? "—" : value.toFixed(count).replace("-", "−");
}

/** Format a number with about `count` significant digits. */
export function brief(value, count = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "—";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(count - 2).replace("-", "−");
  return String(Number(value.toPrecision(count))).replace("-", "−");
}

/** Return the current theme: "light" or "dark". */
export function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

/** Copy a text to the clipboard. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("The browser does not allow copying. Select the text and copy it.", "bad");
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
      // without storage, the theme applies to this page only
    }
    changed();
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
const navigation = document.querySelector(".top nav"), currentEntry = navigation?.querySelector("[aria-current]");
if (currentEntry) navigation.scrollLeft = currentEntry.offsetLeft - navigation.clientWidth / 3;
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
