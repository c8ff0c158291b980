// Sorts and filters the leaderboard without reloading. The address holds the state of the view.
import { SYMBOLS, chart, colour } from "./charts.js";
import { fetchJson, brief, digits, el, pageData, showState, toast } from "./page.js";

const AUTOMATIC = 600; // up to this many runs, intervals are loaded without being requested
const NAMES = { latency_ms: "Milliseconds per image", fit_seconds: "Seconds to fit", memory_mb: "Peak memory, MB", model_mb: "Model size, MB" };
const form = document.getElementById("view");
const about = form && pageData("about");

if (form) start();

function start() {
  document.getElementById("apply").hidden = true;
  form.addEventListener("submit", leaveEmptyOut);
  form.addEventListener("change", (event) => {
    if (event.target.name === "kind") applyFilters();
    else if (event.target.name !== "find") form.requestSubmit();
  });
  form.elements.find.addEventListener("input", applyFilters);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.name === "find") event.preventDefault();
  });
  for (const head of document.querySelectorAll(".board th[data-column]")) head.querySelector("button").addEventListener("click", () => sort(head));
  document.addEventListener("click", switchMetric);
  for (const button of document.querySelectorAll("#costs button")) button.addEventListener("click", () => press(button));
  loadTradeoff();
  if (about.intervals || about.runs <= AUTOMATIC) loadIntervals();
}

function leaveEmptyOut() {
  const unwanted = [...form.elements].filter((field) => field.name && !field.value && !field.disabled);
  if (form.elements.setting.value && form.dataset.moved) unwanted.push(form.elements.setting, form.elements.protocol);
  for (const field of unwanted) field.disabled = true;
  setTimeout(() => unwanted.forEach((field) => (field.disabled = false)));
}

// another data set has other settings, protocols and metrics, so these choices are reset
form?.elements.dataset.addEventListener("change", () => {
  form.dataset.moved = "1";
  for (const field of form.querySelectorAll("[name=metric], [name=seed], [name=detail], [name=sort]")) field.disabled = true;
}, { capture: true });

function sort(head) {
  const now = head.getAttribute("aria-sort"), first = head.dataset.lower ? "ascending" : "descending";
  const next = now ? (now === "ascending" ? "descending" : "ascending") : first;
  for (const other of document.querySelectorAll(".board th[aria-sort]")) other.removeAttribute("aria-sort");
  for (const table of document.querySelectorAll(".board")) {
    const own = [...table.tHead.rows[0].cells].find((cell) => cell.dataset.column === head.dataset.column);
    if (!own) continue;
    own.setAttribute("aria-sort", next);
    const value = (row) => row.cells[own.cellIndex].dataset.value;
    const sign = next === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (own.classList.contains("number") ? x - y : x < y ? -1 : x > y ? 1 : 0);
    });
    table.tBodies[0].append(...rows);
  }
  form.elements.sort.value = (next === "ascending" ? "" : "-") + head.dataset.column;
  updateAddress();
}

function applyFilters() {
  const find = form.elements.find.value.toLowerCase();
  const kinds = [...form.querySelectorAll("[name=kind]:checked")].map((field) => field.value);
  let hidden = false;
  for (const table of document.querySelectorAll(".board")) {
    for (const row of table.tBodies[0].rows) {
      const name = row.cells[0].dataset.value.toLowerCase();
      row.hidden = !name.includes(find) || (kinds.length > 0 && !kinds.includes(row.dataset.kind));
      hidden ||= row.hidden;
    }
    table.closest("[data-board]").querySelector("[data-nothing]").hidden = [...table.tBodies[0].rows].some((row) => !row.hidden);
  }
  updateAddress();
  // rows that the server has filtered out must be requested
  if (!hidden && (about.query.includes("find=") || about.query.includes("kind="))) form.requestSubmit();
}

/** Write the state of the view to the address and to the download links. */
function updateAddress() {
  const values = new FormData(form), address = new URLSearchParams(location.search);
  for (const name of ["find", "kind", "sort"]) {
    address.delete(name);
    for (const value of values.getAll(name)) if (value) address.append(name, value);
  }
  history.replaceState(null, "", `${location.pathname}${address.size ? `?${address}` : ""}`);
  for (const link of document.querySelectorAll("#downloads a")) {
    const target = new URL(link.href);
    for (const name of ["find", "kind", "sort"]) {
      target.searchParams.delete(name);
      for (const value of values.getAll(name)) if (value) target.searchParams.append(name, value);
    }
    link.href = target;
  }
}

/** Show another metric below the tables without reloading the page. */
async function switchMetric(event) {
  const link = event.target.closest?.("[data-detail]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const address = new URL(location.href);
  address.searchParams.set("detail", link.dataset.detail);
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error("The server does not answer.");
    const other = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("beside");
    document.getElementById("beside").replaceWith(other);
  } catch (error) {
    toast(error.message, "bad");
    return;
  }
  about.detail = form.elements.detail.value = link.dataset.detail;
  history.replaceState(null, "", `${location.pathname}${address.search}`);
  for (const button of document.querySelectorAll("#costs button")) button.addEventListener("click", () => press(button));
  loadTradeoff();
  document.querySelector("[data-detail][aria-current]")?.focus();
}

/** Load confidence intervals, and mark detectors that do not differ significantly from the best. */
async function loadIntervals() {
  const query = new URLSearchParams(about.query);
  for (const name of ["kind", "find", "sort", "reported", "percent", "intervals"]) query.delete(name);
  const waits = [...document.querySelectorAll("[data-waiting]")];
  for (const wait of waits) wait.hidden = !about.intervals;
  let found;
  try {
    found = await fetchJson(`/api/v1/leaderboard/intervals?${query}`);
  } catch (error) {
    if (about.intervals) toast(error.message, "bad");
    for (const wait of waits) wait.hidden = true;
    return; // then the table stays as it is
  }
  for (const wait of waits) wait.textContent = "Below the numbers: 95 % intervals, from 1000 bootstrap resamples of the test images. Pixel metrics have none.";
  const answers = [...document.querySelectorAll("[data-answer]")], titles = [...new Set(found.map((one) => one.title))];
  titles.forEach((title, n) => {
    if (answers.length === titles.length && !about.percent) answers[n].textContent = found.find((one) => one.title === title).sentence;
  });
  for (const one of found) {
    const table = [...document.querySelectorAll(".board")].find((t) => t.closest("[data-board]").querySelector("h2").textContent === one.title);
    const column = table && [...table.tHead.rows[0].cells].find((cell) => cell.dataset.column === one.metric);
    if (!column) continue;
    for (const row of table.tBodies[0].rows) {
      const own = one.entries.find((entry) => entry.name === row.cells[0].dataset.value), cell = row.cells[column.cellIndex];
      if (!own) continue;
      const scale = about.percent ? 100 : 1, count = about.percent ? 1 : 3;
      const between = `${digits(own.low * scale, count)}–${digits(own.high * scale, count)}`;
      cell.title = `95 % interval ${between}`;
      if (about.intervals) cell.append(el("span", { class: "between" }, between));
      if (own.level && !cell.classList.contains("best") && one.entries.length > 1) {
        cell.classList.add("tied");
        cell.append(el("span", { class: "visually-hidden" }, " not significantly different from the best"));
        table.closest("[data-board]").querySelector("[data-ties]").hidden = false;
      }
    }
  }
}

let points = [], cost = "latency_ms", redraw = () => {};

function press(button) {
  cost = button.dataset.cost;
  for (const other of document.querySelectorAll("#costs button")) other.setAttribute("aria-pressed", String(other === button));
  redraw();
}

/** Draw accuracy against cost. */
async function loadTradeoff() {
  const place = document.getElementById("tradeoff");
  if (!place) return;
  const query = new URLSearchParams(about.query);
  for (const name of ["kind", "find", "sort", "reported", "percent", "intervals", "metric"]) query.delete(name);
  query.set("metric", about.detail);
  let found;
  try {
    found = await fetchJson(`/api/v1/leaderboard/tradeoffs?${query}`);
  } catch (error) {
    showState(place, "error", error.message);
    return;
  }
  points = found.flatMap((one) => one.points);
  if (!points.length) {
    showState(place, "empty", "No detector has a number in every category.");
    return;
  }
  const [{ label, lower_is_better: lower }] = found;
  cost = document.querySelector("#costs [aria-pressed=true]").dataset.cost;
  redraw = chart(place, () => tradeoff(label, lower), `${label} over what it costs; the numbers are in the table below`);
  const columns = Object.entries(NAMES);
  document.getElementById("tradeoff-table").replaceChildren(el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "detector"), el("th", { scope: "col", class: "number" }, label),
      columns.map(([, name]) => el("th", { scope: "col", class: "number" }, name)))),
    el("tbody", {}, points.map((point) => el("tr", {}, el("th", { scope: "row" }, point.name), el("td", { class: "number" }, digits(point.value)),
      columns.map(([key]) => el("td", { class: point.front.includes(key) ? "number best" : "number" }, brief(point.costs[key], 3))))))));
}

function tradeoff(label, lower) {
  const have = points.filter((point) => point.costs[cost] > 0);
  const front = have.filter((point) => point.front.includes(cost)).sort((a, b) => a.costs[cost] - b.costs[cost]);
  const rest = have.filter((point) => !point.front.includes(cost));
  const trace = (some, more) => ({
    x: some.map((point) => point.costs[cost]), y: some.map((point) => point.value), text: some.map((point) => point.name),
    hovertemplate: `<b>%{text}</b><br>${label} %{y:.3f}<br>${NAMES[cost]} %{x:.4~g}<extra></extra>`, cliponaxis: false, ...more,
  });
  const few = have.length <= 8, values = have.map((point) => point.value);
  const padding = Math.max((Math.max(...values) - Math.min(...values)) * 0.14, 0.01);
  const range = [Math.max(0, Math.min(...values) - padding), Math.max(...values) + padding];
  return {
    data: [
      trace(rest, { mode: few ? "markers+text" : "markers", textposition: "top center", textfont: { color: colour("muted"), size: 12 },
        marker: { size: 9, color: colour("card"), line: { color: colour("muted"), width: 1.8 }, symbol: SYMBOLS[0] } }),
      trace(front, { mode: "lines+markers+text", textposition: "top center", textfont: { color: colour("text"), size: 12.5 },
        line: { color: colour("accent"), width: 1.6, shape: "hv" }, marker: { size: 10, color: colour("accent") } }),
    ],
    layout: {
      xaxis: { type: "log", title: NAMES[cost], dtick: have.length ? undefined : 1, nticks: 6, tickformat: "~g" },
      yaxis: { title: label, range: lower ? range.reverse() : range, tickformat: ".3~f" },
    },
  };
}
