// Verdicts of several runs on the same images: rows are images, columns are runs.
import { fetchJson, brief, el, pageData, showState } from "./page.js";
import { mixer, tile } from "./images.js";

const PAGE_SIZE = 60; // rows added at a time
const CORRECT = ["caught", "passed"];
const comparison = document.getElementById("comparison");
let samples = [], images = new Map(), show = "apart", limit = PAGE_SIZE;

if (comparison) start();

async function start() {
  const { runs } = pageData("about");
  const query = new URLSearchParams(runs.map((run) => ["run", run]));
  try {
    const [found, kept] = await Promise.all([fetchJson(`/api/v1/comparisons?${query}`), fetchJson(`/api/v1/images?${query}`)]);
    samples = found.samples;
    for (const one of kept) {
      if (!images.has(one.sample)) images.set(one.sample, new Map());
      images.get(one.sample).set(one.run, one);
    }
  } catch (error) {
    showState(comparison, "error", error.message);
    return;
  }
  document.getElementById("mixer").replaceChildren(mixer(document.getElementById("images")));
  for (const button of document.querySelectorAll("#show button")) button.addEventListener("click", () => press(button));
  const some = document.querySelector("#show button[data-show=apart]");
  for (const field of [document.getElementById("only"), document.getElementById("kept")]) field.addEventListener("change", () => draw());
  if (!samples.some((one) => !one.agreed)) press(document.querySelector("#show button[data-show=right]"));
  else press(some);
}

function press(button) {
  show = button.dataset.show;
  limit = PAGE_SIZE;
  for (const other of document.querySelectorAll("#show button")) other.setAttribute("aria-pressed", String(other === button));
  draw();
}

function draw() {
  const { runs, names } = pageData("about");
  const right = (one, n) => CORRECT.includes(one.verdicts[n]);
  const only = document.getElementById("only").value, kept = document.getElementById("kept").checked;
  const wanted = samples.filter((one) => (show === "apart" ? !one.agreed : one.agreed && right(one, 0) === (show === "right")))
    .filter((one) => only === "" || one.verdicts.every((_, n) => right(one, n) === (n === Number(only))))
    .filter((one) => !kept || images.has(one.sample))
    .sort((a, b) => images.has(b.sample) - images.has(a.sample));
  const shown = wanted.slice(0, limit), have = wanted.filter((one) => images.has(one.sample)).length;
  document.getElementById("shown").textContent = `${wanted.length} ${wanted.length === 1 ? "image" : "images"}, ${have} of them stored`;
  if (!shown.length) {
    showState(comparison, "empty", show === "apart" ? "No such image: the runs agree." : "No such image.");
    return;
  }
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Image"), names.map((name) => el("th", { scope: "col" }, name))));
  const body = el("tbody", {}, shown.map((one) => row(one, runs, names)));
  const more = wanted.length > limit ? el("button", { type: "button", onclick: () => ((limit += PAGE_SIZE), draw()) }, `Show ${Math.min(PAGE_SIZE, wanted.length - limit)} more`) : null;
  comparison.replaceChildren(el("table", { class: "comparison" }, el("caption", { class: "visually-hidden" }, "Verdicts by image and run"), head, body), ...[more].filter(Boolean));
}

function row(one, runs, names) {
  const seen = images.get(one.sample);
  const first = seen && [...seen.values()].find((image) => image.links.input);
  const bare = first && { ...first, score: undefined, links: { input: first.links.input, mask: [...seen.values()].map((p) => p.links.mask).find(Boolean) } };
  const what = el("div", { class: "what" }, el("span", {}, one.defect), el("small", {}, one.sample));
  return el("tr", {}, el("th", { scope: "row", class: "wrap" }, bare ? tile(bare, { caption: false }) : null, what),
    runs.map((run, n) => {
      const badge = el("span", { class: `badge ${{ "false alarm": "alarm" }[one.verdicts[n]] ?? one.verdicts[n]}` }, one.verdicts[n] || "no threshold");
      const image = seen?.get(run);
      return el("td", {}, image ? tile({ ...image, defect: "" }, { more: [badge] }) : el("div", { class: "verdict" }, badge, el("span", { class: "score" }, brief(one.scores[n]))));
    }));
}
