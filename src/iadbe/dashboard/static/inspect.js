// Inspect: sends images to the model in small batches and shows score, verdict and heat map.
import { brief, digits, el, pageData, toast } from "./page.js";
import { mixer, tile } from "./images.js";
import { byId, bytes, plural, save, send, capitalized } from "./tools.js";
import { zip } from "./zip.js";

const BATCH = 8; // images of one request, so that results appear while others are being scored
const models = pageData("models"), limits = pageData("limits");
let entries = []; // {n, name, file, address, model, state: waiting|busy|done, result, milliseconds}
let number = 0, working = false, stream = null, shot = 0;

const model = () => models[byId("model").value];
const limit = () => Number(byId("limit").value);

// ---------------------------------------------------------------- adding and scoring images

function add(files) {
  const images = [...files].filter((file) => !file.name.startsWith("."));
  for (const file of images) {
    const entry = { n: number++, name: file.webkitRelativePath || file.name, file, address: URL.createObjectURL(file), model: byId("model").value, state: "waiting", result: null };
    if (file.size > limits.bytes) Object.assign(entry, { state: "done", result: wrong(`It has ${bytes(file.size)}; ${bytes(limits.bytes)} are allowed.`) });
    entries.push(entry);
  }
  draw();
  scoreWaiting();
}

const wrong = (error) => ({ score: null, scaled: null, defective: null, verdict: null, error });

async function scoreWaiting() {
  if (working) return;
  working = true;
  for (let batch = nextBatch(); batch.length; batch = nextBatch()) {
    for (const entry of batch) entry.state = "busy";
    draw();
    const requested = batch[0].model, form = new FormData();
    form.append("model", requested);
    for (const entry of batch) form.append("files", entry.file, entry.file.name);
    try {
      const found = await send("/api/v1/predict", form);
      found.findings.forEach((result, n) => finish(batch[n], { result, milliseconds: found.milliseconds }));
    } catch (error) {
      if ((error.status === 429 || error.status === 503) && error.wait) {
        toast(`${capitalized(error.message)} Retrying.`);
        for (const entry of batch) entry.state = "waiting";
        draw();
        await new Promise((done) => setTimeout(done, error.wait * 1000));
      } else for (const entry of batch) finish(entry, { result: wrong(error.message) });
    }
    draw();

    function finish(entry, outcome) {
      if (entry.model === requested) Object.assign(entry, { state: "done", ...outcome }); // else another model was chosen meanwhile
    }
  }
  working = false;
}

function nextBatch() {
  const waiting = entries.filter((entry) => entry.state === "waiting");
  const batch = [];
  let size = 0;
  for (const entry of waiting) {
    if (entry.model !== waiting[0].model || batch.length === Math.min(BATCH, limits.images)) break;
    size += entry.file.size;
    if (batch.length && size > limits.body * 0.9) break;
    batch.push(entry);
  }
  return batch;
}

function rescore() {
  for (const entry of entries) Object.assign(entry, { model: byId("model").value, state: "waiting", result: null, shown: null });
  draw();
  scoreWaiting();
}

// ---------------------------------------------------------------- drawing

const NAMES = { good: "good", look: "look at it", reject: "defective" }, COLOURS = { good: "good", look: "warn", reject: "bad" };

function verdict(entry) { // good, look, reject or null
  const { result } = entry;
  if (!result || result.error || result.score === null || result.position_found === false) return null;
  if (limit() === 0.5 || result.scaled === null || result.scaled === undefined) return result.verdict; // at its own threshold, the model's verdict counts
  return result.scaled >= limit() ? "reject" : "good";
}

function draw() {
  byId("results").hidden = !entries.length;
  const done = entries.filter((entry) => entry.state === "done"), verdicts = done.map(verdict);
  const count = (one) => verdicts.filter((v) => v === one).length, look = count("look");
  const failed = done.filter((entry) => entry.result.error).length;
  const times = done.filter((entry) => entry.milliseconds).map((entry) => entry.milliseconds);
  const mean = times.length ? times.reduce((a, b) => a + b) / times.length : null;
  const tally = [["Images", done.length === entries.length ? entries.length : `${done.length} of ${entries.length}`], ["Defective", count("reject")],
    look || entries.some((entry) => hasLook(models[entry.model])) ? ["Look at it", look] : null, ["Good", count("good")],
    failed ? ["Not scored", failed] : null, ["Time per image", mean ? `${digits(mean, mean < 10 ? 1 : 0)} ms` : "–"]].filter(Boolean);
  const text = JSON.stringify(tally);
  if (byId("tally").dataset.shown !== text) {
    byId("tally").dataset.shown = text;
    byId("tally").replaceChildren(...tally.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
  }
  const show = byId("show").value, order = byId("order").value;
  const matching = entries.filter((entry) => show === "all" || entry.state !== "done" || verdict(entry) === show);
  if (order === "worst") matching.sort((a, b) => (b.result?.score ?? -Infinity) - (a.result?.score ?? -Infinity));
  if (order === "name") matching.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  byId("tiles").replaceChildren(...matching.map(shown));
}

function shown(entry) {
  const key = `${entry.state} ${verdict(entry)} ${limit()}`;
  if (entry.shown?.key !== key) entry.shown = { key, place: el("li", {}, figure(entry)) };
  return entry.shown.place;
}

function figure(entry) {
  const { result } = entry;
  if (entry.state !== "done") {
    return el("figure", { class: "tile pending" }, el("div", { class: "layers" }, el("img", { src: entry.address, alt: entry.name, onerror: (event) => event.target.remove() })),
      el("figcaption", {}, el("span", { class: "name" }, entry.name), el("span", { class: "badge" }, entry.state === "busy" ? "scoring …" : "waiting")));
  }
  if (result.error) return el("figure", { class: "tile" }, el("div", { class: "blank" }, capitalized(result.error)), el("figcaption", {}, el("span", { class: "name" }, entry.name), el("span", { class: "badge bad" }, "not scored")));
  const is = verdict(entry);
  const badge = el("span", { class: `badge ${COLOURS[is] ?? ""}` }, result.position_found === false ? "position not found" : NAMES[is] ?? "no threshold");
  const links = { input: entry.address, ...(result.map ? { heat: result.map } : {}), ...(result.mask && is === "reject" ? { mask: result.mask } : {}) };
  const place = tile({ sample: entry.name, score: result.score, links }, { caption: false, more: [badge] });
  const image = place.querySelector("img"); // a format that browsers cannot show is replaced by the server's overlay
  image.addEventListener("error", () => {
    if (!result.heat || image.src === result.heat) return image.remove();
    image.src = result.heat;
    place.querySelector(".heat")?.remove();
  });
  place.append(el("figcaption", {}, el("span", { class: "name", title: entry.name }, entry.name), badge), scale(entry, is),
    el("p", { class: "muted small" }, `score ${brief(result.score)}${entry.milliseconds ? ` · ${digits(entry.milliseconds, 0)} ms` : ""}`));
  return place;
}

const hasLook = (one) => limit() === 0.5 && one.look_scaled !== null && one.look_scaled !== undefined;

function scale(entry, is) {
  const { result } = entry, one = models[entry.model], mark = (at) => el("i", { class: "mark", style: { left: `${100 * at}%` } });
  if (result.scaled === null || result.scaled === undefined) return "";
  return el("div", { class: `scaled ${COLOURS[is] ?? "good"}`, role: "img", "aria-label": `${digits(result.scaled, 2)} on a scale from 0 to 1; defective from ${digits(limit(), 2)}${hasLook(one) ? `, to be looked at from ${digits(one.look_scaled, 2)}` : ""}` },
    el("i", { class: "fill", style: { width: `${100 * result.scaled}%` } }), hasLook(one) ? mark(one.look_scaled) : "", mark(limit()), el("b", {}, digits(result.scaled, 2)));
}

function about() {
  const one = model();
  const values = Object.entries({ image_auroc: "image AUROC", pixel_auroc: "pixel AUROC" }).filter(([key]) => one.values[key] !== undefined && one.values[key] !== null);
  const facts = [["Detector", el("a", { href: `/detectors/${one.detector}` }, one.detector)], ["Trained on", `${one.dataset} · ${one.task} · ${one.setting}`],
    ["Protocol", one.protocol], ["Size", bytes(one.bytes)], ...values.map(([key, name]) => [name, digits(one.values[key])]), ["Threshold", one.threshold === null ? "none" : brief(one.threshold)],
    ...(one.look_threshold === null || one.look_threshold === undefined ? [] : [["Look at it from", brief(one.look_threshold)]]),
    ["Run", el("a", { href: `/runs/${one.id}` }, one.id)]];
  byId("about").replaceChildren(el("dl", { class: "pairs" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]).flat()),
    el("p", { class: "small" }, one.how ? capitalized(one.how) : ""),
    one.threshold === null ? el("p", { class: "notice warn" }, "The model has no threshold, so there is no verdict. Set one with iadbe calibrate.") : "");
  byId("limit").disabled = one.threshold === null;
  byId("limit-note").textContent = one.look_scaled ? "0.5 is the model's own threshold. Elsewhere there are two verdicts, good and defective." : "0.5 is the model's own threshold.";
}

// ---------------------------------------------------------------- downloads

const rows = () => entries.filter((entry) => entry.state === "done").map((entry) => ({
  name: entry.name, model: entry.model, detector: models[entry.model].detector, score: entry.result.score, scaled: entry.result.scaled ?? null,
  defective: verdict(entry) ? verdict(entry) === "reject" : null, verdict: verdict(entry), limit: limit(), milliseconds: entry.milliseconds ?? null, error: entry.result.error || "",
}));

function csv() {
  const found = rows(), names = Object.keys(found[0] ?? { name: "" });
  const cell = (value) => {
    const text = value === null ? "" : String(value);
    const safe = typeof value === "string" && /^(\s*[=+\-@＝＋－＠]| *\t)/.test(text) ? `'${text}` : text; // prevents formula injection in spreadsheets
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [names, ...found.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const json = () => JSON.stringify({ model: model(), findings: rows() }, null, 1);

async function packed() {
  const text = new TextEncoder(), files = [{ name: "findings.csv", data: text.encode(csv()) }, { name: "findings.json", data: text.encode(json()) }];
  for (const entry of entries) {
    if (!entry.result?.heat) continue;
    const stem = `${String(entry.n + 1).padStart(4, "0")}_${entry.name.replace(/[^\w.-]+/g, "_").replace(/\.\w+$/, "")}`;
    for (const [kind, address] of [["overlay", entry.result.heat], ["heat", entry.result.map], ["mask", entry.result.mask]]) {
      if (address) files.push({ name: `${kind}/${stem}.png`, data: Uint8Array.from(atob(address.split(",")[1]), (c) => c.charCodeAt(0)) });
    }
  }
  return zip(files);
}

// ---------------------------------------------------------------- the camera

async function camera(device) {
  if (!navigator.mediaDevices?.getUserMedia) return toast("Browsers allow the camera only on this machine or over https.", "bad");
  close();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: device ? { deviceId: { exact: device } } : { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    return toast(error.name === "NotAllowedError" ? "The camera was not allowed." : `There is no camera to use (${error.name}).`, "bad");
  }
  byId("video").srcObject = stream;
  byId("still").hidden = true;
  byId("moving").hidden = false;
  const all = (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === "videoinput");
  byId("which").hidden = all.length < 2;
  byId("which").replaceChildren(...all.map((one, n) => el("option", { value: one.deviceId, selected: one.deviceId === stream.getVideoTracks()[0].getSettings().deviceId }, one.label || `Camera ${n + 1}`)));
}

function close() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("moving").hidden = true;
  byId("still").hidden = false;
  byId("always").checked = false;
}

async function takePhoto() {
  const video = byId("video");
  if (!stream || !video.videoWidth) return;
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  add([new File([blob], `camera-${String(++shot).padStart(3, "0")}.png`, { type: "image/png" })]);
}

async function takeContinuously() { // takes the next image when the last one has its verdict
  while (byId("always").checked && stream) {
    if (!entries.some((entry) => entry.state !== "done")) await takePhoto();
    await new Promise((done) => setTimeout(done, 250));
  }
}

// ---------------------------------------------------------------- event handlers

if (byId("drop")) {
  const drop = byId("drop");
  byId("mixer").append(mixer(byId("results")));
  byId("mixer").querySelector("input[type=checkbox]").parentElement.lastChild.textContent = "Outline detections";
  byId("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
  addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); add(event.dataTransfer.files); });
  addEventListener("paste", (event) => { if (event.clipboardData.files.length) add(event.clipboardData.files); });
  byId("camera").addEventListener("click", () => camera());
  byId("close").addEventListener("click", close);
  byId("take").addEventListener("click", takePhoto);
  byId("always").addEventListener("change", takeContinuously);
  byId("which").addEventListener("change", () => camera(byId("which").value));
  byId("model").addEventListener("change", () => {
    history.replaceState(null, "", `/inspect?model=${byId("model").value}`);
    about();
    if (entries.length) rescore();
  });
  for (const id of ["order", "show"]) byId(id).addEventListener("change", draw);
  byId("limit").addEventListener("input", () => {
    byId("limit-value").textContent = digits(limit(), 2);
    byId("limit-reset").hidden = limit() === 0.5;
    draw();
  });
  byId("limit-reset").addEventListener("click", () => { byId("limit").value = 0.5; byId("limit").dispatchEvent(new Event("input")); });
  byId("clear").addEventListener("click", () => {
    for (const entry of entries) URL.revokeObjectURL(entry.address);
    entries = [];
    draw();
  });
  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", async () => {
      button.closest("details").open = false;
      if (!rows().length) return toast("There are no results to download.");
      const kind = button.dataset.save;
      if (kind === "csv") save("findings.csv", csv(), "text/csv");
      else if (kind === "json") save("findings.json", json(), "application/json");
      else save("findings.zip", await packed());
      toast(`Saved the results of ${plural(rows().length, "image")}`);
    });
  }
  about();
}
