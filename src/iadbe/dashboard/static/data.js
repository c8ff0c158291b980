// Pages of the data: upload, removal and data check.
import { fetchJson, digits, el, toast } from "./page.js";
import { byId, plural } from "./tools.js";
import { uploads } from "./upload.js";

uploads((made) => location.assign(`/data/${encodeURIComponent(made.name)}`));

for (const select of document.querySelectorAll("[data-submits]")) select.addEventListener("change", () => select.form.requestSubmit());

for (const button of document.querySelectorAll("[data-removes]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.removes;
    if (!confirm(`Remove ${name} and its images from the server? Runs on it stay.`)) return;
    try {
      await fetchJson(`/api/v1/datasets/${encodeURIComponent(name)}`, { method: "DELETE" });
      location.assign("/data");
    } catch (error) {
      toast(error.message, "bad");
    }
  });
}

const check = byId("check");
if (check) {
  const button = check.querySelector("button");
  button.addEventListener("click", runCheck);
  if (check.dataset.now === "yes") runCheck();
}

async function runCheck() {
  const [button, message] = [check.querySelector("button"), check.querySelector(".message")];
  button.hidden = true;
  message.textContent = "Reading every image …";
  message.classList.add("busy");
  try {
    showReport(await fetchJson(`/api/v1/datasets/${encodeURIComponent(check.dataset.name)}/check`));
    message.remove();
  } catch (error) {
    message.textContent = error.message;
    message.classList.remove("busy");
    button.hidden = false;
  }
}

function showReport(found) {
  const counted = (entries) => Object.entries(entries).filter(([, n]) => n).map(([k, n]) => `${k.replaceAll("_", " ")}: ${n}`).join(", ");
  const range = (sides) => `${Math.min(...sides)} to ${Math.max(...sides)}`;
  const sized = (sizes) => {
    const sides = Object.keys(sizes).map((size) => size.split("x").map(Number));
    if (sides.length <= 6) return counted(sizes);
    return `${sides.length} sizes, ${range(sides.map(([height]) => height))} high, ${range(sides.map(([, width]) => width))} wide`;
  };
  const several = (list, what) => `${list.length} ${what}${list.length === 1 ? "" : "s"}`;
  const errors = found.problems.filter((p) => p.grade === "error").length;
  const facts = [
    ["Sizes", sized(found.sizes)],
    ["Converted to RGB", counted(found.converted) || "nothing"],
    ["Masks of defects", counted(found.masks) || "none"],
    ["Mean defect area", Object.entries(found.defect_share).map(([c, s]) => `${c} ${digits(100 * s, s < 0.01 ? 2 : 1)} %`).join(", ")],
    ["Masks read as", counted(found.mask_reading)],
    ["Pixels that count", Object.entries(found.counted).map(([c, s]) => `${c} ${digits(100 * s, s < 0.01 ? 2 : 1)} %`).join(", ")],
    ["Images of more than 8 bits", found.intensity],
    ["Near-copies", found.near_copies.length ? several(found.near_copies, "pair") : ""],
    ["Duplicates", found.duplicates.length ? several(found.duplicates, "group") : "none"],
    ["Unused files", Object.entries(found.unused).map(([folder, n]) => `${folder}: ${n}`).join(", ")],
  ].filter(([, text]) => text);
  const warnings = found.problems.length - errors;
  const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);
  check.append(
    el("p", { class: "badges" }, found.problems.length ? null : badge("good", "no problems"),
      errors ? badge("bad", plural(errors, "error")) : null, warnings ? badge("warn", plural(warnings, "warning")) : null),
    el("ul", { class: "notes" }, found.problems.slice(0, 50).map((p) => el("li", { class: p.grade === "error" ? "wrong" : "" }, p.sentence))),
    el("dl", { class: "pairs" }, facts.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]).flat()),
  );
}
