// The same pictures under several runs: rows are pictures, columns are runs, and one sees who is wrong where.
import { ask, brief, el, given, state } from "./frame.js";
import { mixer, tile } from "./pictures.js";

const MOST = 60; // rows at a time
const RIGHT = ["caught", "passed"];
const walls = document.getElementById("walls");
let samples = [], pictures = new Map(), show = "apart", limit = MOST;

if (walls) start();

async function start() {
  const { runs } = given("about");
  const query = new URLSearchParams(runs.map((run) => ["run", run]));
  try {
    const [found, kept] = await Promise.all([ask(`/api/v1/comparisons?${query}`), ask(`/api/v1/pictures?${query}`)]);
    samples = found.samples;
    for (const one of kept) {
      if (!pictures.has(one.sample)) pictures.set(one.sample, new Map());
      pictures.get(one.sample).set(one.run, one);
    }
  } catch (error) {
    state(walls, "error", error.message);
    return;
  }
  document.getElementById("mixer").replaceChildren(mixer(document.getElementById("pictures")));
  for (const button of document.querySelectorAll("#show button")) button.addEventListener("click", () => press(button));
  const some = document.querySelector("#show button[data-show=apart]");
  for (const field of [document.getElementById("only"), document.getElementById("kept")]) field.addEventListener("change", () => draw());
  if (!samples.some((one) => !one.agreed)) press(document.querySelector("#show button[data-show=right]"));
  else press(some);
}

function press(button) {
  show = button.dataset.show;
  limit = MOST;
  for (const other of document.querySelectorAll("#show button")) other.setAttribute("aria-pressed", String(other === button));
  draw();
}

function draw() {
  const { runs, names } = given("about");
  const right = (one, n) => RIGHT.includes(one.verdicts[n]);
  const only = document.getElementById("only").value, kept = document.getElementById("kept").checked;
  const wanted = samples.filter((one) => (show === "apart" ? !one.agreed : one.agreed && right(one, 0) === (show === "right")))
    .filter((one) => only === "" || one.verdicts.every((_, n) => right(one, n) === (n === Number(only))))
    .filter((one) => !kept || pictures.has(one.sample))
    .sort((a, b) => pictures.has(b.sample) - pictures.has(a.sample));
  const shown = wanted.slice(0, limit), have = wanted.filter((one) => pictures.has(one.sample)).length;
  document.getElementById("shown").textContent = `${wanted.length} ${wanted.length === 1 ? "picture" : "pictures"}, ${have} of them kept to be seen`;
  if (!shown.length) {
    state(walls, "empty", show === "apart" ? "There is no such picture: the runs agree." : "There is no such picture.");
    return;
  }
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Picture"), names.map((name) => el("th", { scope: "col" }, name))));
  const body = el("tbody", {}, shown.map((one) => row(one, runs, names)));
  const more = wanted.length > limit ? el("button", { type: "button", onclick: () => ((limit += MOST), draw()) }, `Show ${Math.min(MOST, wanted.length - limit)} more`) : null;
  walls.replaceChildren(el("table", { class: "walls" }, el("caption", { class: "visually-hidden" }, "Verdicts by picture and run"), head, body), ...[more].filter(Boolean));
}

function row(one, runs, names) {
  const seen = pictures.get(one.sample);
  const first = seen && [...seen.values()].find((picture) => picture.links.input);
  const bare = first && { ...first, score: undefined, links: { input: first.links.input, mask: [...seen.values()].map((p) => p.links.mask).find(Boolean) } };
  const what = el("div", { class: "what" }, el("span", {}, one.defect), el("small", {}, one.sample));
  return el("tr", {}, el("th", { scope: "row", class: "wrap" }, bare ? tile(bare, { caption: false }) : null, what),
    runs.map((run, n) => {
      const badge = el("span", { class: `badge ${{ "false alarm": "alarm" }[one.verdicts[n]] ?? one.verdicts[n]}` }, one.verdicts[n] || "no threshold");
      const picture = seen?.get(run);
      return el("td", {}, picture ? tile({ ...picture, defect: "" }, { more: [badge] }) : el("div", { class: "verdict" }, badge, el("span", { class: "score" }, brief(one.scores[n]))));
    }));
}
