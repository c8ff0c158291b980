// Hands dropped images to the worker, one after the other, and shows what it finds.
const worker = new Worker("worker.js", { type: "module" });
const [answer, drop, files, list, shape] =
  ["answer", "drop", "files", "results", "result"].map((id) => document.getElementById(id));
const VERDICTS = { "-1": "scored", 0: "good", 1: "look at it", 2: "reject" };
const KINDS = { "-1": "", 0: "good", 1: "look", 2: "reject" };
const counts = { waiting: 0, scored: 0, failed: 0 };
const entries = new Map();
let next = 0;

worker.onmessage = ({ data }) => ({ ready, scored, failed, broken })[data.kind](data);
worker.onerror = (event) => broken({ why: event.message || "the worker did not start" });

function ready({ card }) {
  const title = [card.detector, card.about.task || card.about.dataset].filter(Boolean).join(", ");
  document.getElementById("model").textContent = document.title = title;
  const how = card.calibration.how;
  document.getElementById("threshold").textContent =
    card.calibration.threshold == null ? "The model has no threshold, so there are scores without verdicts."
      : `Threshold ${number(card.calibration.threshold)}${how ? `: ${how}` : ""}.`;
  answer.textContent = "Ready.";
  files.disabled = false;
}

function broken({ why }) {
  answer.textContent = `The model could not be loaded: ${why}. A page opened from a disk cannot load it: serve the folder.`;
}

function take(given) {
  if (files.disabled) return;
  for (const file of given) {
    const entry = shape.content.cloneNode(true).firstElementChild;
    entry.querySelector(".verdict").textContent = "waiting";
    entry.querySelector(".numbers").textContent = file.name;
    list.prepend(entry);
    entries.set(next, entry);
    counts.waiting += 1;
    worker.postMessage({ id: next, file });
    next += 1;
  }
  tell();
}

function scored({ id, name, score, probability, verdict, regions, milliseconds, picture }) {
  const entry = show(id, VERDICTS[verdict], KINDS[verdict]);
  const canvas = entry.querySelector("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("bitmaprenderer").transferFromImageBitmap(picture);
  canvas.setAttribute("aria-label", `${name}: ${VERDICTS[verdict]}`);
  const shown = Number.isNaN(probability) ? "" : ` (${probability.toFixed(3)} on the scale from 0 to 1)`;
  entry.querySelector(".numbers").textContent = `${name} · score ${number(score)}${shown}${areas(regions)} · ${Math.round(milliseconds)} ms`;
  Object.assign(entry.dataset, { score, verdict, name });
  if (regions) entry.dataset.regions = JSON.stringify(regions);
  counts.scored += 1;
  tell();
}

function failed({ id, name, why }) {
  const entry = show(id, "not scored", "failed");
  entry.querySelector("canvas").remove();
  entry.querySelector(".numbers").textContent = `${name}: ${why}`;
  counts.failed += 1;
  tell();
}

function show(id, text, kind) {
  const entry = entries.get(id);
  entries.delete(id);
  counts.waiting -= 1;
  const verdict = entry.querySelector(".verdict");
  verdict.textContent = text;
  if (kind) verdict.classList.add(kind);
  return entry;
}

function tell() {
  const all = [...list.children];
  const found = [0, 1, 2].map((v) => [VERDICTS[v], all.filter((e) => e.dataset.verdict === String(v)).length]);
  const parts = found.filter(([, n]) => n).map(([text, n]) => `${n} ${text}`);
  if (!parts.length && counts.scored) parts.push(`${counts.scored} scored`);
  if (counts.failed) parts.push(`${counts.failed} not scored`);
  if (counts.waiting) parts.push(`${counts.waiting} waiting`);
  answer.textContent = `${parts.join(", ")}.`;
}

/** Say which regions count, where the verdict follows from them. */
function areas(regions) {
  if (!regions) return "";
  if (!regions.length) return " · no region counts";
  const some = regions.slice(0, 3).map(({ area, zone }) => `${area} pixels${zone ? ` in ${zone}` : ""}`);
  return ` · ${regions.length} ${regions.length === 1 ? "region" : "regions"} of ${some.join(", ")}${regions.length > 3 ? " …" : ""}`;
}

const number = (value) => Number(value.toPrecision(4)).toString();

files.addEventListener("change", () => { take(files.files); files.value = ""; });
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});
