// The pages of the data: upload, remove, and what a look at every image finds.
import { ask, digits, el, toast } from "./frame.js";
import { byId, many } from "./work.js";
import { uploads } from "./upload.js";

uploads((made) => location.assign(`/data/${encodeURIComponent(made.name)}`));

for (const select of document.querySelectorAll("[data-submits]")) select.addEventListener("change", () => select.form.requestSubmit());

for (const button of document.querySelectorAll("[data-removes]")) {
  button.addEventListener("click", async () => {
    const name = button.dataset.removes;
    if (!confirm(`Remove ${name} and its images from the server? Runs on it stay.`)) return;
    try {
      await ask(`/api/v1/datasets/${encodeURIComponent(name)}`, { method: "DELETE" });
      location.assign("/data");
    } catch (error) {
      toast(error.message, "bad");
    }
  });
}

const check = byId("check");
if (check) {
  const button = check.querySelector("button");
  button.addEventListener("click", look);
  if (check.dataset.now === "yes") look();
}

async function look() {
  const [button, said] = [check.querySelector("button"), check.querySelector(".said")];
  button.hidden = true;
  said.textContent = "Looking at every image …";
  said.classList.add("busy");
  try {
    show(await ask(`/api/v1/datasets/${encodeURIComponent(check.dataset.name)}/check`));
    said.remove();
  } catch (error) {
    said.textContent = error.message;
    said.classList.remove("busy");
    button.hidden = false;
  }
}

function show(found) {
  const counted = (entries) => Object.entries(entries).filter(([, n]) => n).map(([k, n]) => `${k.replaceAll("_", " ")}: ${n}`).join(", ");
  const errors = found.problems.filter((p) => p.grade === "error").length;
  const facts = [
    ["Sizes", counted(found.sizes)],
    ["Converted to RGB", counted(found.converted) || "nothing"],
    ["Masks of defects", counted(found.masks) || "none"],
    ["Mean size of a defect", Object.entries(found.defect_share).map(([c, s]) => `${c} ${digits(100 * s, s < 0.01 ? 2 : 1)} %`).join(", ")],
    ["Duplicates", found.duplicates.length ? `${found.duplicates.length} groups` : "none"],
    ["Not part of the data", counted(found.unused)],
  ].filter(([, text]) => text);
  const warnings = found.problems.length - errors;
  const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);
  check.append(
    el("p", { class: "badges" }, found.problems.length ? null : badge("good", "nothing is wrong"),
      errors ? badge("bad", many(errors, "error")) : null, warnings ? badge("warn", many(warnings, "warning")) : null),
    el("ul", { class: "notes" }, found.problems.slice(0, 50).map((p) => el("li", { class: p.grade === "error" ? "wrong" : "" }, p.sentence))),
    el("dl", { class: "pairs" }, facts.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]).flat()),
  );
}
