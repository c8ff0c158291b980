// The list of runs: filters apply at once, and ticked runs are remembered across pages until they are compared.
import { toast } from "./page.js";

const MAX_RUNS = 6;
const filters = document.getElementById("filters"), chosen = document.getElementById("chosen"), tray = document.getElementById("tray");

const boxes = [...filters.querySelectorAll("[name=metric]")], initial = boxes.map((box) => box.checked).join();
const hasMetrics = new URLSearchParams(location.search).has("metric");
document.getElementById("apply").hidden = true;
filters.addEventListener("change", () => filters.requestSubmit());
filters.addEventListener("submit", () => {
  const empty = [...filters.elements].filter((field) => field.name && (!field.value || (field.name === "state" && field.value === "all")));
  if (!hasMetrics && boxes.map((box) => box.checked).join() === initial) empty.push(...boxes);
  for (const field of empty) field.disabled = true;
  setTimeout(() => empty.forEach((field) => (field.disabled = false)));
});

const kept = new Set(JSON.parse(sessionStorage.getItem("iadbe-compare") ?? "[]"));

function show() {
  sessionStorage.setItem("iadbe-compare", JSON.stringify([...kept]));
  if (!tray) return;
  tray.hidden = kept.size === 0;
  document.getElementById("count").textContent = `${kept.size} ${kept.size === 1 ? "run is" : "runs are"} ticked`;
  tray.querySelector("button").disabled = kept.size < 2;
}

for (const box of chosen.querySelectorAll("[name=run]")) {
  box.checked = kept.has(box.value);
  box.addEventListener("change", () => {
    if (box.checked && kept.size === MAX_RUNS) {
      box.checked = false;
      toast(`At most ${MAX_RUNS} runs can be compared.`, "bad");
    } else if (box.checked) kept.add(box.value);
    else kept.delete(box.value);
    show();
  });
}
chosen.addEventListener("submit", (event) => {
  event.preventDefault();
  if (kept.size < 2) return;
  const query = new URLSearchParams([...kept].map((run) => ["run", run]));
  kept.clear();
  show();
  location.assign(`/compare?${query}`);
});
show();
