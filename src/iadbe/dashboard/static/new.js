// A new run: what is chosen becomes a grid, the API plans it, and starts it.
import { ask, el, given, toast } from "./frame.js";
import { byId, many, send, sentence } from "./work.js";
import { fields } from "./form.js";
import { uploads } from "./upload.js";

const SHELVES = {
  data: (name) => `/api/v1/datasets/${encodeURIComponent(name)}`,
  detectors: (name) => `/api/v1/detectors/${encodeURIComponent(name)}?results=false`,
  settings: (name) => `/api/v1/settings/${encodeURIComponent(name)}`,
};
const chosen = { data: new Map(), detectors: new Map(), settings: new Map() }; // name -> panel, in the order of choice
let waiting, asking, last = "";

function boxes(shelf) {
  return [...document.querySelectorAll(`#${shelf} input[type=checkbox]`)];
}

async function choose(shelf, name, entry = {}) {
  if (chosen[shelf].has(name)) return;
  const summary = el("span", { class: "muted small" });
  const close = el("button", { type: "button", class: "quiet", "aria-label": `Remove ${name}`, onclick: () => drop(shelf, name) }, "Remove");
  const inside = el("div", {}, el("p", { class: "loading" }, "Loading the parameters"));
  const details = el("details", {}, el("summary", {}, el("b", {}, name), " ", summary), inside);
  const panel = { place: el("div", { class: "panel" }, details, close), entry, values: () => ({ params: entry.params ?? {}, sweep: entry.sweep ?? {} }), categories: () => entry.categories };
  chosen[shelf].set(name, panel);
  byId(`${shelf}-chosen`).append(panel.place);
  box(shelf, name, true);
  planLater();
  try {
    const found = await ask(SHELVES[shelf](name));
    const made = fields(found.form, `${shelf}-${name}`, () => { told(); planLater(); });
    made.fill(entry.params, entry.sweep);
    panel.values = made.values;
    panel.plain = !made.count && !(found.categories?.length > 1);
    inside.replaceChildren(made.count || panel.plain ? made.place : "");
    if (shelf === "data" && found.categories.length > 1) {
      const wanted = entry.categories?.length ? entry.categories : found.categories;
      const all = found.categories.map((one) => el("input", { type: "checkbox", value: one, checked: wanted.includes(one), onchange: () => { told(); planLater(); } }));
      panel.categories = () => all.every((one) => one.checked) ? undefined : all.filter((one) => one.checked).map((one) => one.value);
      inside.prepend(el("fieldset", { class: "categories" }, el("legend", {}, "Categories"),
        el("button", { type: "button", class: "quiet", onclick: () => { const on = !all.every((one) => one.checked); for (const one of all) one.checked = on; told(); planLater(); } }, "All or none"),
        all.map((one) => el("label", { class: "check" }, one, one.value))));
      if (found.categories.length <= 12 || entry.categories) details.open = true;
    }
    panel.count = found.categories?.length;
    told();
  } catch (error) {
    inside.replaceChildren(el("p", { class: "wrong" }, error.message));
  }

  function told() {
    const { params, sweep } = panel.values();
    const parts = [...Object.entries(params), ...Object.entries(sweep)].map(([key, value]) => `${key}=${Array.isArray(value) ? value.join(",") : value}`);
    const some = panel.categories();
    if (some) parts.unshift(`${some.length} of ${panel.count ?? "its"} categories`);
    summary.textContent = parts.join(" · ") || (panel.plain ? "nothing to set" : "defaults");
  }
}

function drop(shelf, name) {
  chosen[shelf].get(name)?.place.remove();
  chosen[shelf].delete(name);
  box(shelf, name, false);
  planLater();
}

function box(shelf, name, on) {
  const found = boxes(shelf).find((one) => one.value === name);
  if (found) found.checked = on;
}

function entries(shelf) {
  return [...chosen[shelf]].map(([name, panel]) => {
    const { params, sweep } = panel.values(), categories = panel.categories();
    const entry = { name };
    if (Object.keys(params).length) entry.params = params;
    if (Object.keys(sweep).length) entry.sweep = sweep;
    if (categories) entry.categories = categories;
    return entry;
  });
}

function seeds() {
  const found = [];
  for (const part of byId("seeds").value.split(",").map((one) => one.trim()).filter(Boolean)) {
    const [, from, to] = part.match(/^(\d{1,9})(?:-(\d{1,9}))?$/) ?? [];
    if (from === undefined) throw new Error(`${part} is no seed. Write 0, 0,1,2 or 0-4.`);
    if (Number(to ?? from) - Number(from) > 99) throw new Error("At most 100 seeds.");
    for (let seed = Number(from); seed <= Number(to ?? from); seed++) found.push(seed);
  }
  return found.length ? found : [0];
}

function protocol() {
  const kind = byId("kind").value, size = byId("size").value, budget = byId("budget").value.replaceAll(" ", "");
  return kind + (kind === "uniform" && size && Number(size) !== 256 ? `@${size}` : "") + (budget ? `+${budget}` : "");
}

function grid() {
  const metrics = byId("metrics").value.split(",").map((one) => one.trim()).filter(Boolean);
  const found = { data: entries("data"), detectors: entries("detectors"), settings: entries("settings"), seeds: seeds(), protocol: protocol() };
  return metrics.length ? { ...found, metrics } : found;
}

function options() {
  const found = { keep_model: byId("keep_model").checked };
  const numbers = { time_limit: 60, memory_limit: 1e9, jobs: 1, threads: 1, images: 1 };
  for (const [name, unit] of Object.entries(numbers)) {
    const text = byId(name).value;
    if (text !== "") found[name] = name === "time_limit" ? Number(text) * unit : Math.round(Number(text) * unit);
  }
  for (const name of ["device", "engine"]) if (byId(name).value) found[name] = byId(name).value;
  if (byId("retry_failed").checked) found.retry_failed = true;
  return found;
}

function planLater() {
  clearTimeout(waiting);
  waiting = setTimeout(plan, 350);
}

async function plan() {
  const place = byId("plan");
  asking?.abort();
  if (!chosen.data.size || !chosen.detectors.size || !chosen.settings.size) {
    const lacking = [["data", "data"], ["detectors", "a detector"], ["settings", "a setting"]].filter(([shelf]) => !chosen[shelf].size).map(([, word]) => word);
    place.replaceChildren(el("p", { class: "muted" }, `Choose ${lacking.join(" and ")}, and the plan shows here.`));
    last = "";
    return startable(0);
  }
  try {
    const body = { grid: grid() };
    if (JSON.stringify(body) === last) return;
    asking = new AbortController();
    place.classList.add("busy");
    const found = await send("/api/v1/plan", body, "POST", { signal: asking.signal });
    last = JSON.stringify(body);
    shown(place, found);
    startable(found.runs);
  } catch (error) {
    if (asking?.signal.aborted) return;
    last = "";
    place.replaceChildren(el("p", { class: "notice bad" }, sentence(error.message)));
    startable(0);
  }
  place.classList.remove("busy");
}

function shown(place, found) {
  const open = [...place.querySelectorAll("details")].map((one) => one.open);
  const rows = found.some.map((run) => el("li", {}, `${run.detector} · ${run.dataset} ${run.task} · ${run.setting} · seed ${run.seed}`));
  if (found.runs > found.some.length) rows.push(el("li", { class: "muted" }, `and ${found.runs - found.some.length} more`));
  const skipped = found.reasons.map((one) => el("li", {}, el("b", {}, one.what), ` ${one.reason}.`));
  if (found.skipped > found.reasons.length) skipped.push(el("li", { class: "muted" }, `and ${found.skipped - found.reasons.length} more`));
  place.replaceChildren(
    el("p", { class: "count" }, el("b", {}, String(found.runs)), found.runs === 1 ? " run" : " runs"),
    found.done ? el("p", { class: "muted" }, found.done === found.runs ? "All of them are in the store already." : `${found.done} of them are in the store already.`) : "",
    found.skipped ? el("details", { class: "skipped" }, el("summary", {}, el("span", { class: "badge warn" }, `${found.skipped} skipped`), " why"), el("ul", { class: "notes" }, skipped)) : "",
    found.notes.length ? el("ul", { class: "notes muted" }, found.notes.map((note) => el("li", {}, sentence(note)))) : "",
    found.runs ? el("details", {}, el("summary", {}, "Which"), el("ol", { class: "notes" }, rows)) : "",
  );
  [...place.querySelectorAll("details")].forEach((one, n) => { one.open = open[n] ?? (one.className === "skipped" && !found.runs); });
}

function startable(runs) {
  const start = byId("start");
  start.disabled = !runs;
  start.textContent = runs ? `Start ${many(runs, "run")}` : "Start";
}

byId("new").addEventListener("submit", async (event) => {
  event.preventDefault();
  const start = byId("start");
  start.disabled = true;
  byId("start-said").textContent = "";
  try {
    const job = await send("/api/v1/jobs", { grid: grid(), options: options(), title: byId("title").value.trim() });
    location.assign(`/jobs/${job.id}`);
  } catch (error) {
    byId("start-said").textContent = sentence(error.message);
    start.disabled = false;
  }
});

function listen(shelf) {
  byId(shelf).addEventListener("change", (event) => {
    const { value, checked } = event.target;
    if (checked) choose(shelf, value);
    else drop(shelf, value);
  });
}
Object.keys(SHELVES).forEach(listen);
for (const id of ["seeds", "kind", "size", "budget", "metrics"]) byId(id).addEventListener("input", () => {
  byId("size-field").hidden = byId("kind").value === "paper";
  planLater();
});
byId("find").addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
byId("find").addEventListener("input", () => {
  const text = byId("find").value.trim().toLowerCase();
  let found = 0;
  for (const option of document.querySelectorAll("#detectors .option")) {
    option.hidden = !option.dataset.words.includes(text);
    found += option.hidden ? 0 : 1;
  }
  for (const group of document.querySelectorAll("#detectors fieldset")) group.hidden = !group.querySelector(".option:not([hidden])");
  byId("none-found").hidden = found > 0;
});

uploads((made) => {
  const option = el("label", { class: "option" }, el("input", { type: "checkbox", name: "data", value: made.name }),
    el("span", {}, el("b", {}, made.name), " ", el("small", {}, "uploaded"), el("span", { class: "words" }, made.summary)));
  byId("data").prepend(option);
  byId("upload").hidden = true;
  toast(`${made.name} is ready to use`);
  choose("data", made.name);
});

// what the address or an earlier job asks for
const asked = given("asked");
const list = (value) => (value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]);
for (const shelf of Object.keys(SHELVES)) {
  for (const one of list(asked.grid[shelf])) {
    const { name, params, sweep, categories, ...own } = typeof one === "string" ? { name: one } : one;
    if (!boxes(shelf).some((box) => box.value === name)) toast(`${name} is not here any more`, "bad");
    else if (chosen[shelf].has(name)) toast(`${name} was asked for more than once: this form holds the first only`, "bad");
    else choose(shelf, name, { params: { ...own, ...params }, sweep, categories: categories ? list(categories) : undefined });
  }
}
if (asked.grid.metrics) byId("metrics").value = list(asked.grid.metrics).join(", ");
if (asked.grid.seeds !== undefined) byId("seeds").value = list(asked.grid.seeds).join(",");
const [, kind, size, budget] = String(asked.grid.protocol ?? "uniform").match(/^(uniform|paper)(?:@(\d+))?(?:\+(.+))?$/) ?? [];
if (kind) {
  byId("kind").value = kind;
  if (size) byId("size").value = size;
  if (budget) byId("budget").value = budget;
  byId("size-field").hidden = kind === "paper";
}
for (const [name, value] of Object.entries(asked.options)) {
  const control = byId(name), unit = { time_limit: 60, memory_limit: 1e9 }[name] ?? 1;
  if (!control) continue;
  if (control.type === "checkbox") control.checked = Boolean(value);
  else control.value = typeof value === "number" ? value / unit : value;
}
byId("title").value = asked.title;
