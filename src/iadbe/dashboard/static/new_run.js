// New run: the choices become a grid, which the API plans and starts.
import { fetchJson, el, pageData, toast } from "./page.js";
import { byId, plural, send, capitalized } from "./tools.js";
import { fields } from "./parameter_form.js";
import { uploads } from "./upload.js";

const REGISTRIES = {
  data: (name) => `/api/v1/datasets/${encodeURIComponent(name)}`,
  detectors: (name) => `/api/v1/detectors/${encodeURIComponent(name)}?results=false`,
  settings: (name) => `/api/v1/settings/${encodeURIComponent(name)}`,
};
const chosen = { data: new Map(), detectors: new Map(), settings: new Map() }; // name -> panel, in the order of choice
let waiting, pending, last = "";

function boxes(registry) {
  return [...document.querySelectorAll(`#${registry} input[type=checkbox]`)];
}

async function choose(registry, name, entry = {}) {
  if (chosen[registry].has(name)) return;
  const summary = el("span", { class: "muted small" });
  const close = el("button", { type: "button", class: "quiet", "aria-label": `Remove ${name}`, onclick: () => drop(registry, name) }, "Remove");
  const inside = el("div", {}, el("p", { class: "loading" }, "Loading the parameters"));
  const details = el("details", {}, el("summary", {}, el("b", {}, name), " ", summary), inside);
  const panel = { place: el("div", { class: "panel" }, details, close), entry, values: () => ({ params: entry.params ?? {}, sweep: entry.sweep ?? {} }), categories: () => entry.categories, region: () => entry.region };
  chosen[registry].set(name, panel);
  byId(`${registry}-chosen`).append(panel.place);
  box(registry, name, true);
  planLater();
  try {
    const found = await fetchJson(REGISTRIES[registry](name));
    const made = fields(found.form, `${registry}-${name}`, () => { summarize(); planLater(); });
    made.fill(entry.params, entry.sweep);
    panel.values = made.values;
    panel.plain = !made.count && !(found.categories?.length > 1);
    inside.replaceChildren(made.count || panel.plain ? made.place : "");
    if (registry === "data" && found.categories.length > 1) {
      const wanted = entry.categories?.length ? entry.categories : found.categories;
      const all = found.categories.map((one) => el("input", { type: "checkbox", value: one, checked: wanted.includes(one), onchange: () => { summarize(); planLater(); } }));
      panel.categories = () => all.every((one) => one.checked) ? undefined : all.filter((one) => one.checked).map((one) => one.value);
      inside.prepend(el("fieldset", { class: "categories" }, el("legend", {}, "Categories"),
        el("button", { type: "button", class: "quiet", onclick: () => { const on = !all.every((one) => one.checked); for (const one of all) one.checked = on; summarize(); planLater(); } }, "All or none"),
        all.map((one) => el("label", { class: "check" }, one, one.value))));
      if (found.categories.length <= 12 || entry.categories) details.open = true;
    }
    if (registry === "data" && Object.keys(found.regions).length) inside.prepend(regionChoice(name, entry, panel, summarize));
    panel.count = found.categories?.length;
    summarize();
  } catch (error) {
    inside.replaceChildren(el("p", { class: "wrong" }, error.message));
  }

  function summarize() {
    const { params, sweep } = panel.values();
    const parts = [...Object.entries(params), ...Object.entries(sweep)].map(([key, value]) => `${key}=${Array.isArray(value) ? value.join(",") : value}`);
    const some = panel.categories(), region = panel.region();
    if (region) parts.unshift(`region: ${region}`);
    if (some) parts.unshift(`${some.length} of ${panel.count ?? "its"} categories`);
    summary.textContent = parts.join(" · ") || (panel.plain ? "no parameters" : "defaults");
  }
}

/** Create the choice of what is used of the regions that are drawn on data. */
function regionChoice(name, entry, panel, summarize) {
  const choices = { drawn: "as drawn", roi: "only regions of interest", ignore: "only ignored regions", none: "every pixel counts" };
  const select = el("select", { id: `data-${name}-region`, onchange: () => { summarize(); planLater(); } },
    Object.entries(choices).map(([value, text]) => el("option", { value, selected: value === (entry.region ?? "drawn") }, text)));
  panel.region = () => (select.value === "drawn" ? undefined : select.value);
  return el("p", { class: "field" }, el("label", { for: select.id }, "What counts"), select,
    el("small", {}, el("a", { href: `/data/${encodeURIComponent(name)}/regions` }, "Drawn on the Data page")));
}

function drop(registry, name) {
  chosen[registry].get(name)?.place.remove();
  chosen[registry].delete(name);
  box(registry, name, false);
  planLater();
}

function box(registry, name, on) {
  const found = boxes(registry).find((one) => one.value === name);
  if (found) found.checked = on;
}

function entries(registry) {
  return [...chosen[registry]].map(([name, panel]) => {
    const { params, sweep } = panel.values(), categories = panel.categories();
    const entry = { name };
    if (Object.keys(params).length) entry.params = params;
    if (Object.keys(sweep).length) entry.sweep = sweep;
    if (categories) entry.categories = categories;
    if (panel.region()) entry.region = panel.region();
    return entry;
  });
}

function seeds() {
  const found = [];
  for (const part of byId("seeds").value.split(",").map((one) => one.trim()).filter(Boolean)) {
    const [, from, to] = part.match(/^(\d{1,9})(?:-(\d{1,9}))?$/) ?? [];
    if (from === undefined) throw new Error(`${part} is not a seed. Write 0, 0,1,2 or 0-4.`);
    if (Number(to ?? from) - Number(from) > 99) throw new Error("At most 100 seeds.");
    for (let seed = Number(from); seed <= Number(to ?? from); seed++) found.push(seed);
  }
  return found.length ? found : [0];
}

const protocolFields = [...document.querySelectorAll("[data-protocol]")];
const valueOf = (control) => (control.type === "checkbox" ? control.checked : control.value.trim());

/** Ask the server for the protocol's name, and show beside each field what is wrong with it. */
async function protocol(signal) {
  const query = new URLSearchParams(protocolFields.map((one) => [one.id, valueOf(one)]));
  const { name, errors } = await fetchJson(`/api/v1/protocol?${query}`, { signal });
  for (const { id } of protocolFields) {
    if (byId(`${id}-error`)) byId(`${id}-error`).textContent = capitalized(errors[id] ?? "");
    byId(id).setAttribute("aria-invalid", String(Boolean(errors[id])));
  }
  byId("protocol").replaceChildren(...(name ? ["Stored as ", el("code", {}, name), ". Tables never mix two protocols."] : []));
  if (["align", "limits", "tiles", "overlap", "tiling", "top", "precision", "accumulate"].some((id) => errors[id])) byId("more").open = true;
  return name;
}

function showNeeded() {
  const isPaper = byId("kind").value === "paper", tiled = byId("tiles").value.trim() !== "";
  for (const id of ["size", "fit"]) byId(`${id}-field`).hidden = isPaper;
  byId("limits-field").hidden = byId("align").value === "none";
  for (const id of ["overlap", "tiling", "top"]) byId(`${id}-field`).hidden = !tiled;
}

function grid(name) {
  const metrics = byId("metrics").value.split(",").map((one) => one.trim()).filter(Boolean);
  const found = { data: entries("data"), detectors: entries("detectors"), settings: entries("settings"), seeds: seeds(), protocol: name };
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
  pending?.abort();
  if (!chosen.data.size || !chosen.detectors.size || !chosen.settings.size) {
    const lacking = [["data", "data"], ["detectors", "a detector"], ["settings", "a setting"]].filter(([registry]) => !chosen[registry].size).map(([, word]) => word);
    place.replaceChildren(el("p", { class: "muted" }, `Choose ${lacking.join(" and ")} to see the plan.`));
    last = "";
    startable(0);
    return protocol().catch((error) => toast(error.message, "bad"));
  }
  const own = pending = new AbortController();
  try {
    const name = await protocol(own.signal);
    if (!name) throw new Error("One of the options is wrong: see there.");
    const body = { grid: grid(name) };
    if (JSON.stringify(body) === last) return;
    place.classList.add("busy");
    const found = await send("/api/v1/plan", body, "POST", { signal: own.signal });
    last = JSON.stringify(body);
    shown(place, found);
    startable(found.runs);
  } catch (error) {
    if (own.signal.aborted) return;
    last = "";
    place.replaceChildren(el("p", { class: "notice bad" }, capitalized(error.message)));
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
    found.notes.length ? el("ul", { class: "notes muted" }, found.notes.map((note) => el("li", {}, capitalized(note)))) : "",
    found.runs ? el("details", {}, el("summary", {}, "Which"), el("ol", { class: "notes" }, rows)) : "",
  );
  [...place.querySelectorAll("details")].forEach((one, n) => { one.open = open[n] ?? (one.className === "skipped" && !found.runs); });
}

function startable(runs) {
  const start = byId("start");
  start.disabled = !runs;
  start.textContent = runs ? `Start ${plural(runs, "run")}` : "Start";
}

byId("new").addEventListener("submit", async (event) => {
  event.preventDefault();
  const start = byId("start");
  start.disabled = true;
  byId("start-message").textContent = "";
  try {
    const job = await send("/api/v1/jobs", { grid: grid(await protocol()), options: options(), title: byId("title").value.trim() });
    location.assign(`/jobs/${job.id}`);
  } catch (error) {
    byId("start-message").textContent = capitalized(error.message);
    start.disabled = false;
  }
});

function listen(registry) {
  byId(registry).addEventListener("change", (event) => {
    const { value, checked } = event.target;
    if (checked) choose(registry, value);
    else drop(registry, value);
  });
}
Object.keys(REGISTRIES).forEach(listen);
for (const control of [byId("seeds"), byId("metrics"), ...protocolFields]) control.addEventListener("input", () => {
  showNeeded();
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

// fill the form from the address or an earlier job
const request = pageData("request");
const list = (value) => (value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]);
for (const registry of Object.keys(REGISTRIES)) {
  for (const one of list(request.grid[registry])) {
    const { name, params, sweep, categories, region, ...own } = typeof one === "string" ? { name: one } : one;
    if (!boxes(registry).some((box) => box.value === name)) toast(`${name} is no longer available`, "bad");
    else if (chosen[registry].has(name)) toast(`${name} occurs more than once: this form holds only the first`, "bad");
    else choose(registry, name, { params: { ...own, ...params }, sweep, region, categories: categories ? list(categories) : undefined });
  }
}
if (request.grid.metrics) byId("metrics").value = list(request.grid.metrics).join(", ");
if (request.grid.seeds !== undefined) byId("seeds").value = list(request.grid.seeds).join(",");
for (const [id, value] of Object.entries(request.protocol)) {
  if (byId(id)?.type === "checkbox") byId(id).checked = value;
  else if (id !== "error") byId(id).value = value;
}
byId("more").open = [...byId("more").querySelectorAll("[data-protocol]")].some((one) => valueOf(one) !== (one.options?.[0].value ?? "") && !(one.id === "accumulate" && one.value === "1"));
if (request.protocol.error) {
  byId("protocol-old").hidden = false;
  byId("protocol-old").textContent = capitalized(request.protocol.error);
}
showNeeded();
planLater();
for (const [name, value] of Object.entries(request.options)) {
  const control = byId(name), unit = { time_limit: 60, memory_limit: 1e9 }[name] ?? 1;
  if (!control) continue;
  if (control.type === "checkbox") control.checked = Boolean(value);
  else control.value = typeof value === "number" ? value / unit : value;
}
byId("title").value = request.title;
