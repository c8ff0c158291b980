// The page of a job, updated by server-sent events. Events are numbered, so after a lost connection nothing is missed.
import { fetchJson, digits, el, toast } from "./page.js";
import { chart, series } from "./charts.js";
import { byId, bytes, duration, plural, send, capitalized } from "./tools.js";

const id = byId("job").dataset.id;
const OVER = ["done", "failed", "stopped"];
const PAGE = 100;
const VALUES = [["image_auroc", "image AUROC"], ["pixel_auroc", "pixel AUROC"], ["image_f1max", "image F1"]];
const runs = new Map(); // id -> {id, state, about, phases, losses, memory, seconds, error, values, began}
let job, stream, known = 0, broken = false, shown = PAGE, only = "all", watched = "", redrawLoss, drawPending = false;
const logs = new Map(); // run -> {text, end}

async function load() {
  try {
    const found = await fetchJson(`/api/v1/jobs/${id}`);
    job = found;
    known = found.last_event;
    for (const run of found.runs) runs.set(run.id, run);
    for (const one of runs.keys()) if (!found.runs.some((run) => run.id === one)) runs.delete(one);
    if (broken) toast("Connected again.", "good");
    broken = false;
  } catch (error) {
    if (error.status === 404) return showRemoved();
    broken = true;
    connection("lost", "connection lost, trying again …");
    return void setTimeout(load, 1500);
  }
  if (!watched) watch([...runs.values()].find((run) => run.state === "running")?.id ?? [...runs.keys()].at(-1) ?? "");
  draw();
  if (OVER.includes(job.state)) connection("", "");
  else listen();
}

function listen() {
  stream?.close();
  stream = new EventSource(`/api/v1/events?job=${id}&after=${known}&logs=true`);
  stream.onopen = () => connection("live", "live");
  stream.onerror = () => { // the job has ended or the server is away: loading the job tells which
    stream.close();
    if (!OVER.includes(job.state)) connection("lost", "connecting …");
    setTimeout(load, OVER.includes(job.state) ? 0 : 800);
  };
  for (const [kind, react] of Object.entries(HANDLERS)) {
    stream.addEventListener(kind, (event) => {
      if (event.lastEventId) known = Math.max(known, Number(event.lastEventId));
      react(JSON.parse(event.data));
      draw();
    });
  }
}

const HANDLERS = {
  state(message) {
    job.state = message.state;
    job.stopping = Boolean(message.stopping);
    if (message.error) job.error = message.error;
    if (message.worker) job.worker = message.worker;
    if (message.attempt) Object.assign(job, { attempt: message.attempt, done: 0, failed: 0 }); // a new worker starts counting from 0
    job.started ??= message.state === "running" ? message.at : null;
    if (OVER.includes(message.state)) job.ended = message.at;
  },
  plan(message) { job.plan = message; },
  planned(message) { Object.assign(job, { total: message.total, already: message.already }); },
  started(message) {
    runs.delete(message.run);
    runs.set(message.run, { id: message.run, state: "running", about: message, phases: {}, losses: [], memory: null, seconds: null, error: "", values: {}, began: message.at });
    logs.delete(message.run);
    if (!watched || runs.get(watched)?.state !== "running") watch(message.run);
  },
  progress(message) { const run = runs.get(message.run); if (run) run.phases[message.phase] = { done: message.done, total: message.total }; },
  loss(message) {
    runs.get(message.run)?.losses.push([message.n, message.value]);
    if (message.run === watched) drawLoss();
  },
  memory(message) { const run = runs.get(message.run); if (run) run.memory = message.bytes; },
  finished(message) {
    const run = runs.get(message.run);
    if (run) Object.assign(run, { state: message.error ? "failed" : "done", error: message.error, seconds: message.seconds, values: message.values });
    job[message.error ? "failed" : "done"] += 1;
  },
  notice(message) { notes(message.text); },
  log(message) {
    const old = logs.get(message.run);
    // after a reconnect the server sends the tail again, which replaces the text
    const text = old && old.end === message.start ? old.text + message.text : message.text;
    logs.set(message.run, { text: text.slice(-200000), end: message.end });
    if (message.run === watched) drawLog();
  },
};

function connection(kind, text) {
  const place = byId("connection");
  place.hidden = !text;
  place.className = `badge connection ${kind === "live" ? "good" : "warn"}`;
  if (place.textContent !== text) place.textContent = text;
}

function notes(text) {
  byId("notes").hidden = false;
  byId("notes").querySelector("ul").append(el("li", {}, capitalized(text)));
}

function showRemoved() {
  stream?.close();
  byId("error").hidden = false;
  byId("error").textContent = "This job was removed.";
  byId("stop").hidden = byId("remove").hidden = true;
}

// ---------------------------------------------------------------- drawing

function draw() {
  if (drawPending) return;
  drawPending = true;
  requestAnimationFrame(() => {
    drawPending = false;
    drawJob();
    drawRuns();
  });
}

function drawJob() {
  const over = OVER.includes(job.state);
  const state = byId("state");
  state.className = `badge ${job.state}`;
  state.textContent = job.stopping && !over ? "stopping …" : job.state;
  byId("stop").hidden = over;
  byId("stop").disabled = job.stopping;
  byId("remove").hidden = !over;
  byId("error").hidden = !job.error;
  byId("error").textContent = capitalized(job.error || "");
  const finished = job.already + job.done + job.failed;
  byId("bar").max = job.total || 1;
  byId("bar").value = job.total ? finished : 0;
  const took = job.started ? Math.max(0, (job.ended ?? Date.now() / 1000) - job.started) : null;
  const each = job.done + job.failed ? took / (job.done + job.failed) : null;
  const left = !over && each !== null && job.total ? each * (job.total - finished) : null;
  const skipped = job.plan?.skipped ?? 0;
  byId("figures").replaceChildren(...[
    [job.kind === "export" ? "Exports" : "Runs", job.total ? `${finished} of ${job.total}` : "not planned yet", job.already ? `${job.already} were in the store` : ""],
    ["Failed", String(job.failed), ""],
    skipped ? ["Skipped", String(skipped), "cannot be combined"] : null,
    ["Under way", String([...runs.values()].filter((run) => run.state === "running").length), ""],
    ["Took", duration(took), left ? `about ${duration(left)} left` : ""],
    ["Worker", job.worker || "–", job.attempt > 1 ? `taken ${job.attempt} times` : ""],
  ].filter(Boolean).map(([name, text, more]) => el("div", {}, el("dt", {}, name), el("dd", {}, text, more ? el("small", {}, more) : null))));
  const waits = job.state === "queued" && Date.now() / 1000 - job.created > 6;
  byId("hint").hidden = !waits;
  if (waits) byId("hint").replaceChildren(el("span", {}, "Waiting for a worker. If none is free, start one: ", el("code", {}, "iadbe worker --store DIR")));
}

function drawRuns() {
  const all = [...runs.values()].reverse().sort((a, b) => (b.state === "running") - (a.state === "running"));
  const counts = { all: all.length, running: 0, done: 0, failed: 0 };
  for (const run of all) counts[run.state] += 1;
  const filter = byId("filter");
  if (filter.dataset.shown !== JSON.stringify([counts, only])) {
    filter.dataset.shown = JSON.stringify([counts, only]);
    const focus = filter.contains(document.activeElement) ? [...filter.children].indexOf(document.activeElement) : -1;
    filter.replaceChildren(...Object.entries(counts).map(([name, count]) =>
      el("button", { type: "button", "aria-pressed": String(name === only), onclick: () => { only = name; drawRuns(); } }, `${name} ${count}`)));
    filter.children[focus]?.focus();
  }
  const meant = all.filter((run) => only === "all" || run.state === only);
  const body = byId("runs").tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.run, row]));
  const rows = meant.slice(0, shown).map((run) => {
    const text = JSON.stringify([run.state, run.phases, run.losses.length, run.memory, run.seconds, run.error, run.values, run.id === watched, run.state === "running" ? Math.round(Date.now() / 1000) : 0]);
    const row = old.get(run.id) ?? el("tr", { "data-run": run.id });
    if (row.dataset.shown !== text) {
      const focused = row.contains(document.activeElement);
      row.dataset.shown = text;
      row.replaceChildren(...cells(run));
      if (focused) row.querySelector("button")?.focus();
    }
    return row;
  });
  if (rows.length !== body.rows.length || rows.some((row, n) => body.rows[n] !== row)) body.replaceChildren(...rows);
  byId("no-runs").hidden = meant.length > 0;
  byId("no-runs").textContent = all.length ? `No run is ${only}.` : job.already && job.already === job.total ? "All runs were in the store already." : "No run has started yet.";
  byId("runs").hidden = !meant.length;
  byId("more").hidden = meant.length <= shown;
}

function cells(run) {
  const { about } = run;
  const name = `${about.detector ?? run.id} · ${about.task ?? ""}`;
  const [phase, step] = Object.entries(run.phases).at(-1) ?? [];
  const took = run.seconds ?? (run.began ? Math.max(0, Date.now() / 1000 - run.began) : null);
  const finished = run.state === "done" || run.state === "failed";
  const values = VALUES.filter(([metric]) => metric in run.values).map(([metric, label]) => el("span", { class: "value" }, `${label} `, el("b", {}, digits(run.values[metric]))));
  return [
    el("th", { scope: "row" }, finished ? el("a", { href: `/runs/${run.id}` }, name) : name, el("br"), el("small", {}, `${about.dataset} · ${about.setting} · seed ${about.seed}`)),
    el("td", {}, el("span", { class: `badge ${run.state}` }, run.state)),
    el("td", {}, run.state === "running" && step ? [el("progress", { max: step.total || 1, value: step.done, "aria-label": `${name}: ${phase}` }), el("br"), el("small", {}, `${phase} ${step.done}${step.total ? ` of ${step.total}` : ""}`)] : el("small", {}, run.state === "running" ? "starting" : "")),
    el("td", {}, spark(run.losses)),
    el("td", { class: "number" }, bytes(run.memory)),
    el("td", { class: "number" }, duration(took)),
    el("td", { class: "wrap" }, run.error ? el("span", { class: "wrong" }, run.error.split("\n")[0]) : values),
    el("td", {}, el("button", { type: "button", class: "quiet", "aria-pressed": String(run.id === watched), "aria-label": `Log of ${name}`, onclick: () => { watch(run.id); byId("watched").scrollIntoView({ block: "nearest" }); draw(); } }, "Log")),
  ];
}

function spark(losses) {
  if (losses.length < 2) return losses.length ? digits(losses[0][1]) : "–";
  const NS = "http://www.w3.org/2000/svg", some = losses.slice(-200);
  const values = some.map(([, value]) => value), low = Math.min(...values), high = Math.max(...values);
  const points = values.map((value, n) => `${((n / (values.length - 1)) * 78 + 1).toFixed(1)},${(21 - ((value - low) / (high - low || 1)) * 20).toFixed(1)}`);
  const image = document.createElementNS(NS, "svg"), line = document.createElementNS(NS, "polyline");
  image.setAttribute("viewBox", "0 0 80 22");
  image.setAttribute("class", "spark");
  image.setAttribute("role", "img");
  image.setAttribute("aria-label", `loss, from ${digits(values[0])} to ${digits(values.at(-1))}`);
  line.setAttribute("points", points.join(" "));
  image.append(line);
  return [image, " ", el("small", {}, digits(values.at(-1)))];
}

// ---------------------------------------------------------------- one run's log and loss

async function watch(run) {
  watched = run;
  byId("watched").hidden = !run || job?.kind === "export";
  if (!run) return;
  const about = runs.get(run)?.about ?? {};
  byId("watched-title").textContent = `${about.detector ?? "Run"} · ${about.task ?? ""} · seed ${about.seed ?? ""}`;
  drawLoss();
  drawLog();
  if (!logs.has(run) && ["done", "failed"].includes(runs.get(run)?.state)) {
    try {
      const found = await fetchJson(`/api/v1/runs/${run}/log`);
      logs.set(run, { text: found.text, end: found.end });
    } catch (error) {
      logs.set(run, { text: error.message, end: -1 });
    }
    if (run === watched) drawLog();
  }
}

function drawLoss() {
  const place = byId("loss");
  place.hidden = !runs.get(watched)?.losses.length;
  if (place.hidden) return;
  redrawLoss ??= chart(place, lossChart, "Loss by step of the run whose log is shown");
  redrawLoss();
}

function lossChart() {
  const losses = runs.get(watched)?.losses ?? [];
  const line = { x: losses.map(([n]) => n), y: losses.map(([, value]) => value), mode: "lines", line: { color: series(0), width: 2 }, hovertemplate: "step %{x}: %{y:.4g}<extra></extra>" };
  return { data: [line], layout: { xaxis: { title: "step" }, yaxis: { title: "loss" } } };
}

function drawLog() {
  const place = byId("log"), text = logs.get(watched)?.text ?? "";
  place.textContent = text || (runs.get(watched)?.state === "running" ? "The log is empty so far." : "The log is empty.");
  if (byId("follow").checked) place.scrollTop = place.scrollHeight;
}

byId("stop").addEventListener("click", async () => {
  byId("stop").disabled = true;
  try {
    Object.assign(job, await send(`/api/v1/jobs/${id}/stop`));
  } catch (error) {
    toast(error.message, "bad");
  }
  draw();
});
byId("remove").addEventListener("click", async () => {
  if (!confirm("Remove this job from the list? Its runs stay in the store.")) return;
  try {
    await fetchJson(`/api/v1/jobs/${id}`, { method: "DELETE" });
    location.assign("/jobs");
  } catch (error) {
    toast(error.message, "bad");
  }
});
byId("more").addEventListener("click", () => { shown += PAGE; drawRuns(); });
setInterval(() => { if (job && !OVER.includes(job.state)) draw(); }, 1000);
load();
