// The page of a run. Moving the threshold updates error rates, the dot on the curves and the verdicts on images.
import { chart, colour } from "./charts.js";
import { fetchJson, brief, digits, el, pageData, showState } from "./page.js";
import { mixer, tile } from "./images.js";
import { counts, verdict } from "./threshold.js";

const about = pageData("about"), base = `/api/v1/runs/${encodeURIComponent(about.run)}`;
const at = (id) => document.getElementById(id);
let every = [], limits = {}, curves = [], test = "", cut = null, images = [], which = "roc";
let scores = [], low = 0, high = 1;
const redraws = [];

if (!about.failed) start();
log();

async function start() {
  try {
    const [found, lines] = await Promise.all([fetchJson(`${base}/scores`), fetchJson(`${base}/curves`)]);
    every = found.scores.filter((one) => one.score !== null);
    limits = found.thresholds;
    curves = lines;
  } catch (error) {
    showState(at("histogram"), "error", error.message);
    return;
  }
  const tests = [...new Set(every.map((one) => one.test))];
  if (!tests.length) {
    showState(at("histogram"), "empty", "This run has no stored scores.");
    return;
  }
  at("test-field").hidden = tests.length < 2;
  at("test").replaceChildren(...tests.map((name) => el("option", {}, name)));
  at("test").addEventListener("change", () => choose(at("test").value));
  at("threshold").addEventListener("input", () => move(low + (at("threshold").value / 1000) * (high - low)));
  at("exact").addEventListener("change", () => {
    const value = Number(at("exact").value.replace("−", "-").replace(",", "."));
    if (Number.isFinite(value) && at("exact").value.trim()) move(value);
    else at("exact").value = brief(cut);
  });
  at("best").addEventListener("click", () => move(limits[test] ?? high));
  at("none").addEventListener("click", () => {
    const bad = scores.filter((one) => one.defect !== "good").map((one) => one.score);
    if (bad.length) move(Math.min(...bad));
  });
  for (const button of document.querySelectorAll("#which button")) button.addEventListener("click", () => {
    which = button.dataset.curve;
    for (const other of document.querySelectorAll("#which button")) other.setAttribute("aria-pressed", String(other === button));
    show();
  });
  choose(tests[0], false);
  redraws.push(chart(at("histogram"), histogram, "Distribution of the scores of good and defective images; the error rates are below"));
  redraws.push(chart(at("curve"), line, "Error rates over all thresholds"));
  losses();
  if (about.images) gallery();
}

function choose(name, draw = true) {
  test = name;
  scores = every.filter((one) => one.test === name);
  const values = scores.map((one) => one.score);
  low = Math.min(...values);
  high = Math.max(...values);
  const padding = (high - low) * 0.02 || 1;
  low -= padding;
  high += padding;
  move(limits[name] ?? high, draw);
}

function move(value, draw = true) {
  cut = value;
  const now = counts(scores, cut);
  at("threshold").value = Math.round(((cut - low) / (high - low)) * 1000);
  at("threshold").setAttribute("aria-valuetext", brief(cut));
  at("exact").value = brief(cut);
  const share = (n, of) => (of ? `${digits((100 * n) / of, 1)} %` : "—");
  const setText = (id, text, small) => at(id).replaceChildren(text, el("small", {}, small));
  setText("escapes", share(now.escapes, now.bad), `${now.escapes} of ${now.bad}`);
  setText("overkill", share(now.overkill, now.good), `${now.overkill} of ${now.good}`);
  setText("precision", digits(now.precision), `${now.found} of ${now.found + now.overkill} rejected are defective`);
  setText("f1", digits(now.f1), "of the image verdicts");
  kinds();
  tiles();
  if (draw) show();
}

let waiting = false;
function show() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const redraw of redraws) redraw();
  });
}

/** Show the escape rate of each kind of defect. */
function kinds() {
  const rows = Map.groupBy(scores.filter((one) => one.defect !== "good"), (one) => one.defect);
  if (rows.size < 2) {
    at("kinds").replaceChildren();
    return;
  }
  const body = [...rows].map(([kind, some]) => [kind, some.filter((one) => one.score < cut).length, some.length])
    .sort((a, b) => b[1] / b[2] - a[1] / a[2] || (a[0] < b[0] ? -1 : 1));
  at("kinds").replaceChildren(el("table", {},
    el("caption", { class: "visually-hidden" }, "Escapes by kind of defect"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Kind of defect"), el("th", { scope: "col", class: "number" }, "Escapes"), el("th", { scope: "col", class: "number" }, "Images"), el("th", { scope: "col", class: "number" }, "Found"))),
    el("tbody", {}, body.map(([kind, lost, of]) => el("tr", {}, el("th", { scope: "row" }, kind),
      el("td", { class: `number${lost ? " failed" : ""}` }, String(lost)), el("td", { class: "number" }, String(of)), el("td", { class: "number" }, `${digits((100 * (of - lost)) / of, 0)} %`))))));
}

function histogram() {
  const bins = { start: low, end: high, size: (high - low) / 44 };
  const trace = (name, keep, hue) => ({
    type: "histogram", name, x: scores.filter(keep).map((one) => one.score), xbins: bins, autobinx: false,
    marker: { color: colour(hue, 0.62), line: { color: colour(hue), width: 1 } }, hovertemplate: `%{y} ${name.toLowerCase()}<br>score %{x}<extra></extra>`,
  });
  return {
    data: scores.some((one) => one.defect === "unlabelled")
      ? [trace("Unlabelled", () => true, "c1")]
      : [trace("Good", (one) => one.defect === "good", "c1"), trace("Defective", (one) => one.defect !== "good", "c2")],
    layout: {
      barmode: "overlay", showlegend: true, bargap: 0, margin: { l: 44, r: 16, t: 30, b: 42 },
      xaxis: { title: "Score", range: [low, high] }, yaxis: { title: "Images" },
      shapes: cut === null ? [] : [{ type: "line", x0: cut, x1: cut, y0: 0, y1: 1, yref: "paper", line: { color: colour("text"), width: 2 } },
        { type: "rect", x0: cut, x1: high, y0: 0, y1: 1, yref: "paper", line: { width: 0 }, fillcolor: colour("text", 0.05), layer: "below" }],
    },
  };
}

function line() {
  const one = curves.find((entry) => entry.test === test) ?? { points: [], regions: [] };
  const now = counts(scores, cut), dot = (x, y) => ({ x: [x], y: [y], mode: "markers", hoverinfo: "skip", marker: { size: 11, color: colour("c2"), line: { color: colour("card"), width: 2 } } });
  const data = { roc: [[0, ...one.points.map((p) => p.overkill)], [0, ...one.points.map((p) => p.recall)]],
    pr: [one.points.map((p) => p.recall), one.points.map((p) => p.precision)],
    pro: [one.regions.map((p) => p.overkill), one.regions.map((p) => p.overlap)] }[which];
  const names = { roc: ["False positive rate (overkill)", "True positive rate (recall)"], pr: ["Recall", "Precision"],
    pro: ["False positive rate over pixels", "Per-region overlap"] }[which];
  const marks = { roc: now.good && now.bad ? [dot(now.overkill / now.good, now.found / now.bad)] : [], pr: now.bad && now.precision !== null ? [dot(now.found / now.bad, now.precision)] : [], pro: [] }[which];
  const lacking = which === "pro" ? "This run has no stored PRO curve:<br>it needs masks and the metric pixel_aupro." : "Good or defective images are missing.";
  at("curve-lead").textContent = which === "pro" ? "Over pixels. Papers integrate up to the line, a false positive rate of 30 %." : "Over images. The dot marks the threshold.";
  return {
    data: [{ x: data[0], y: data[1], mode: "lines", line: { color: colour("c1"), width: 2.2, shape: which === "roc" ? "hv" : "linear" }, fill: which === "pr" ? "none" : "tozeroy", fillcolor: colour("c1", 0.08),
      hovertemplate: "%{x:.3f} → %{y:.3f}<extra></extra>" }, ...marks],
    layout: {
      xaxis: { title: names[0], range: [-0.01, 1.01] }, yaxis: { title: names[1], range: [0, 1.03] },
      shapes: which === "pro" && data[0].length ? [{ type: "line", x0: 0.3, x1: 0.3, y0: 0, y1: 1, line: { color: colour("edge"), dash: "dot" } }] : [],
      annotations: data[0].length > 1 ? [] : [{ text: lacking, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: colour("muted") } }],
    },
  };
}

async function losses() {
  const found = await fetchJson(`${base}/losses`).catch(() => []);
  if (found.length < 2) return;
  at("loss").hidden = false;
  const positive = found.every((one) => one.loss > 0), spread = Math.max(...found.map((one) => one.loss)) / Math.min(...found.map((one) => one.loss));
  chart(at("losses"), () => ({
    data: [{ x: found.map((one) => one.step), y: found.map((one) => one.loss), mode: "lines", line: { color: colour("c1"), width: 1.8 }, hovertemplate: "step %{x}<br>loss %{y:.4~g}<extra></extra>" }],
    layout: { xaxis: { title: "Step" }, yaxis: { title: "Loss", type: positive && spread > 20 ? "log" : "linear" } },
  }), `The loss falls from ${brief(found[0].loss)} to ${brief(found.at(-1).loss)} in ${found.at(-1).step} steps`);
}

async function gallery() {
  try {
    images = await fetchJson(`/api/v1/images?run=${encodeURIComponent(about.run)}`);
  } catch (error) {
    showState(at("tiles"), "error", error.message);
    return;
  }
  at("mixer").replaceChildren(mixer(at("images")));
  at("order").addEventListener("change", tiles);
  at("show").addEventListener("change", tiles);
  tiles();
}

const WORDS = { missed: "missed", alarm: "false alarm", caught: "caught", passed: "passed" };
let frames = new Map();

function tiles() {
  if (!images.length) return;
  const tested = new Set(scores.map((one) => one.sample)), wanted = at("show").value;
  const verdicts = images.filter((one) => tested.has(one.sample)).map((one) => ({ one, is: verdict(one, cut) }));
  const wrong = (entry) => entry.is === "missed" || entry.is === "alarm";
  const order = {
    mistake: (a, b) => wrong(b) - wrong(a) || (wrong(a) ? Math.abs(b.one.score - cut) - Math.abs(a.one.score - cut) : Math.abs(a.one.score - cut) - Math.abs(b.one.score - cut)),
    descending: (a, b) => b.one.score - a.one.score,
    ascending: (a, b) => a.one.score - b.one.score,
    name: (a, b) => (a.one.sample < b.one.sample ? -1 : 1),
  }[at("order").value];
  const shown = verdicts.filter((entry) => ({ all: true, wrong: wrong(entry), bad: entry.one.defect !== "good", good: entry.one.defect === "good" })[wanted]).sort(order);
  at("shown").textContent = `${shown.length} of ${verdicts.length} stored, ${verdicts.filter(wrong).length} of them mistakes`;
  if (!shown.length) {
    showState(at("tiles"), "empty", "No stored image matches.");
    return;
  }
  at("tiles").replaceChildren(...shown.map(({ one, is }) => {
    const key = `${one.n}`; // the element of an image is reused, only its verdict changes
    if (!frames.has(key)) {
      const badge = el("span", { class: "badge" });
      frames.set(key, { badge, figure: tile(one, { more: [badge] }) });
    }
    const { badge, figure } = frames.get(key);
    badge.className = `badge ${is}`;
    badge.textContent = WORDS[is];
    return figure;
  }));
}

async function log() {
  const found = await fetchJson(`${base}/log`).catch(() => ({ text: "" }));
  if (!found.text) return;
  at("log-card").hidden = false;
  at("log").textContent = found.text;
}
