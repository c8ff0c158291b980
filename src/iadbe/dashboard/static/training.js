// Charts of the training monitor. Their numbers are also in tables.
import { pageData } from "./page.js";
import { chart, colour, DASHES, series, SYMBOLS } from "./charts.js";
import { byId, duration } from "./tools.js";
import "./jobs.js";

for (const select of document.querySelectorAll("[data-submits]")) select.addEventListener("change", () => select.form.requestSubmit());

if (byId("charts")) {
  const { times, sizes, shares, kinds, best } = pageData("charts");
  draw("times", () => ({
    data: times.data.map((one, n) => ({
      name: one.name, x: times.detectors, y: one.values, mode: "lines+markers", connectgaps: false,
      line: { color: series(n), dash: DASHES[Math.floor(n / 6) % DASHES.length], width: 2 }, marker: { symbol: SYMBOLS[n % SYMBOLS.length], size: 8 },
      customdata: one.values.map(duration), hovertemplate: `%{x} on ${one.name.replaceAll("<", "‹")}: %{customdata}<extra></extra>`,
    })),
    layout: { showlegend: times.data.length > 1, xaxis: { type: "category" }, yaxis: { type: "log", title: "seconds", dtick: "D2" } },
  }), `Training time of ${times.detectors.length} detectors on ${times.data.length} data sets, in seconds on a logarithmic scale`);
  bars("sizes", Object.keys(sizes), Object.values(sizes), "MB", "Size of the models in megabytes");
  const sorted = [...shares].sort((a, b) => a.sampleNumber - b.sampleNumber), sum = sorted.reduce((all, one) => all + one.sampleNumber, 0);
  bars("shares", sorted.map((one) => one.datasetName), sorted.map((one) => one.sampleNumber), "images", "Images of each data set",
    sorted.map((one) => `${(100 * one.sampleNumber / (sum || 1)).toFixed(1)} %, ${one.category} ${one.category === 1 ? "category" : "categories"}`));
  const counted = [...kinds].sort((a, b) => a.value - b.value);
  bars("kinds", counted.map((one) => one.name), counted.map((one) => one.value), "detectors", "Detectors of each kind");
  const known = best.length && best.every((one) => one.data.every((value) => value !== null));
  if (byId("best")) byId("best").hidden = !known; // a radar chart with a missing value would mislead
  if (known) draw("best", () => {
    const top = [0, 1, 2].map((n) => Math.max(...best.map((one) => one.data[n] ?? 0)) || 1);
    return {
      data: best.map((one, n) => ({
        type: "scatterpolar", name: one.label, fill: "toself", theta: ["training time", "model size", "F1", "training time"],
        r: [0, 1, 2, 0].map((k) => (one.data[k] ?? 0) / top[k]), line: { color: series(n), dash: DASHES[n] }, fillcolor: series(n, 0.15),
        hoverinfo: "name+theta",
      })),
      layout: {
        showlegend: true, margin: { l: 60, r: 60, t: 30, b: 30 },
        polar: { bgcolor: "rgba(0,0,0,0)", radialaxis: { range: [0, 1.05], showticklabels: false, gridcolor: colour("line"), linecolor: colour("line"), ticks: "" }, angularaxis: { gridcolor: colour("line"), linecolor: colour("line") } },
      },
    };
  }, "Training time, model size and F1 of the best two detectors, each as a share of the larger value");
}

function draw(id, make, label) {
  if (byId(id)) chart(byId(id), make, label);
}

function bars(id, names, values, unit, label, more = []) {
  const place = byId(id);
  if (!place) return;
  place.style.height = `${76 + 30 * names.length}px`;
  place.style.minHeight = "0";
  draw(id, () => ({
    data: [{ type: "bar", orientation: "h", y: names, x: values, marker: { color: series(0) }, customdata: more.length ? more : values.map(() => ""),
      text: values.map((value) => ` ${value}`), textposition: "outside", cliponaxis: false, textfont: { color: colour("muted") }, hovertemplate: `%{y}: %{x} ${unit}<br>%{customdata}<extra></extra>` }],
    layout: { xaxis: { title: unit, rangemode: "tozero" }, yaxis: { type: "category" }, bargap: 0.35, margin: { l: 10, r: 60, t: 6, b: 40 } },
  }), label);
}
