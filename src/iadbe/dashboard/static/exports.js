// The files of a run's model: lists them, starts exports as jobs, and shows their progress.
import { el, fetchJson, pageData, showState, toast } from "./page.js";
import { byId, bytes, capitalized, send, when } from "./tools.js";

const run = pageData("about").run, base = `/api/v1/models/${encodeURIComponent(run)}/exports`;
const NAMES = { onnx: "ONNX", openvino: "OpenVINO", torch: "torch.export program", web: "Web page" };
const USES = {
  onnx: "one file, for ONNX Runtime and OpenVINO", openvino: "an .xml and a .bin file",
  torch: "for torch alone, without IADBE", web: "a folder: a browser scores images",
};
const WAITS = { queued: "Waiting for a worker.", load: "Loading the model.", convert: "Converting.", compare: "Comparing with torch.", store: "Done." };
const PATIENCE = 6; // seconds after which it is said how a worker is started
const form = byId("export"), progress = new Map(); // job -> its element
let first;

async function load() {
  let found;
  try {
    found = await fetchJson(base);
  } catch (error) {
    showState(byId("under-way"), "error", error.message);
    return;
  }
  const body = byId("files").tBodies[0];
  first ??= body.rows[0];
  body.replaceChildren(first, ...found.exports.map(row));
  byId("not-exportable").hidden = !found.not_exportable;
  byId("not-exportable").textContent = found.not_exportable && `This detector cannot be exported: ${found.not_exportable}.`;
  if (form) {
    form.hidden = Boolean(found.not_exportable);
    if (!byId("export-to").options.length) {
      byId("export-to").replaceChildren(...found.formats.map((to) => el("option", { value: to }, `${NAMES[to] ?? to}: ${USES[to] ?? ""}`)));
      byId("export-precision").replaceChildren(...found.precisions.map((one) => el("option", { value: one }, one)));
    }
  }
  for (const job of found.jobs) follow(job);
}

function row(one) {
  const verdict = one.holds === false ? el("span", { class: "wrong" }, `does not agree: ${one.deviation}. Do not use it.`) : one.deviation || "—";
  const notes = [one.is_outdated ? "The model has been calibrated since: export it again." : "", one.allowed.length ? `Said of licences: ${one.allowed.join(", ")}.` : ""];
  return el("tr", { "data-name": one.name },
    el("th", { scope: "row", class: "wrap" }, `${NAMES[one.to] ?? one.to}, ${one.precision}`, el("br"),
      el("small", {}, `${one.file}, ${when(Date.parse(one.date) / 1000)}`), notes.filter(Boolean).map((text) => [el("br"), el("small", { class: "wrong" }, text)]).flat()),
    el("td", {}, el("a", { class: "button", href: `${base}/${one.name}/download`, "aria-label": `Download ${one.name}` }, "Download"),
      form && el("button", { type: "button", class: "quiet", "aria-label": `Remove ${one.name}`, onclick: () => remove(one.name) }, "Remove")),
    el("td", { class: "number" }, bytes(one.bytes)),
    el("td", { class: "wrap" }, verdict));
}

async function remove(name) {
  if (!confirm(`Remove the exported files ${name}? The model stays.`)) return;
  try {
    await fetchJson(`${base}/${name}`, { method: "DELETE" });
  } catch (error) {
    toast(error.message, "bad");
  }
  load();
}

/** Show the progress of a job until it ends. */
function follow(job) {
  if (progress.has(job.id)) return;
  const bar = el("progress", { "aria-label": job.title }), text = el("small", {}, WAITS.queued);
  const stop = el("button", { type: "button", class: "quiet", onclick: () => send(`/api/v1/jobs/${job.id}/stop`).catch((error) => toast(error.message, "bad")) }, "Stop");
  const shown = el("div", { class: "notice", "data-job": job.id }, el("div", { class: "grow" }, el("a", { href: `/jobs/${job.id}` }, job.title), el("br"), bar, text), stop);
  progress.set(job.id, shown);
  byId("under-way").append(shown);
  const patience = setTimeout(() => text.replaceChildren("Waiting for a worker. If none is free, start one: ", el("code", {}, "iadbe worker --store DIR")), 1000 * PATIENCE);
  const end = (state, error) => {
    clearTimeout(patience);
    if (state === "done") shown.remove();
    else {
      shown.classList.add(state === "failed" ? "bad" : "warn");
      shown.setAttribute("role", "alert");
      shown.replaceChildren(el("div", {}, el("strong", {}, `${job.title}: ${state}. `), capitalized(error)));
    }
    progress.delete(job.id);
    load();
  };
  const stream = new EventSource(`/api/v1/events?job=${job.id}`);
  stream.addEventListener("progress", (event) => {
    clearTimeout(patience);
    const step = JSON.parse(event.data);
    bar.max = step.total || 1;
    bar.value = step.done;
    text.textContent = `${WAITS[step.phase] ?? capitalized(step.phase)} Step ${Math.min(step.done + 1, step.total)} of ${step.total}.`;
  });
  stream.addEventListener("state", (event) => {
    const { state, error } = JSON.parse(event.data);
    if (!["done", "failed", "stopped"].includes(state)) return;
    stream.close();
    end(state, error ?? "");
  });
  stream.onerror = async () => { // the browser connects again by itself, unless the job is over or was removed
    if (stream.readyState !== EventSource.CLOSED || !progress.has(job.id)) return;
    const now = await fetchJson(`/api/v1/jobs/${job.id}`).catch((error) => ({ state: error.status === 404 ? "stopped" : "queued", error: error.message }));
    if (["done", "failed", "stopped"].includes(now.state)) end(now.state, now.error);
    else setTimeout(() => { progress.delete(job.id); shown.remove(); follow(job); }, 3000);
  };
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const allow = byId("export-allow").value;
  const order = { to: byId("export-to").value, precision: byId("export-precision").value, allow: allow ? [allow] : [] };
  try {
    follow(await send(base, order));
  } catch (error) {
    toast(error.message, "bad");
  }
});
byId("export-to")?.addEventListener("change", () => {
  const only = ["torch", "web"].includes(byId("export-to").value);
  if (only) byId("export-precision").value = "fp32";
  byId("export-precision").disabled = only;
});
load();
