// A form of parameters, made from the JSON Schema that the API gives of them.
import { el } from "./frame.js";

/** Write a value as the command line takes it. */
export function said(value) {
  if (Array.isArray(value)) return value.map(said).join(",");
  return value === null || value === undefined ? "" : String(value);
}

const isList = (rule) => rule.type === "array" || rule.anyOf?.some((one) => one.type === "array");

function read(rule, text) {
  const types = rule.anyOf ? rule.anyOf.map((one) => one.type) : [rule.type];
  if (types.includes("boolean") && (text === "true" || text === "false")) return text === "true";
  if ((types.includes("integer") || types.includes("number")) && text !== "" && isFinite(text)) return Number(text);
  return text;
}

/**
 * Make the fields of a schema. Returns {place, values, fill}: `values()` gives {params, sweep} of what is not as by
 * default; several values of one number or word, between commas, are a sweep.
 */
export function fields(schema, prefix, changed) {
  const controls = new Map();
  const place = el("div", { class: "form" });
  let hidden = 0;
  for (const [name, rule] of Object.entries(schema.properties)) {
    if (rule.readOnly) {
      hidden += 1;
      continue;
    }
    const id = `${prefix}-${name}`;
    const choices = rule.enum ?? (rule.type === "boolean" ? [true, false] : null);
    const control = choices
      ? el("select", { id }, choices.map((one) => el("option", { value: said(one) }, said(one))))
      : el("input", { id, placeholder: said(rule.default) || "none", spellcheck: "false" });
    control.setAttribute("aria-describedby", `${id}-rule`);
    if (choices) control.value = said(rule.default);
    control.addEventListener("input", () => {
      mark(control, rule);
      changed();
    });
    controls.set(name, [control, rule]);
    const rest = choices ? "" : ` (${rule["x-takes"]})`;
    place.append(el("p", { class: "field" }, el("label", { for: id }, name), control, el("small", { id: `${id}-rule` }, rule.description + rest)));
  }
  if (!controls.size) place.append(el("p", { class: "muted" }, "Nothing can be set."));
  if (hidden && controls.size) place.append(el("p", { class: "muted small" }, "Parameters that name files are for the command line."));

  function values() {
    const params = {}, sweep = {};
    for (const [name, [control, rule]] of controls) {
      const text = control.value.trim();
      if (text === "" || text === said(rule.default)) continue;
      const parts = text.split(",").map((part) => part.trim()).filter((part) => part !== "");
      if (isList(rule)) params[name] = parts.map((part) => read(rule.items ?? rule.anyOf.find((one) => one.items)?.items ?? {}, part));
      else if (parts.length > 1 && control.tagName === "INPUT") sweep[name] = parts.map((part) => read(rule, part));
      else params[name] = read(rule, text);
    }
    return { params, sweep };
  }

  function fill(params = {}, sweep = {}) {
    for (const [name, value] of Object.entries({ ...params, ...sweep })) {
      const found = controls.get(name);
      if (!found) continue;
      found[0].value = said(value);
      mark(...found);
    }
  }
  return { place, values, fill, count: controls.size };
}

function mark(control, rule) {
  const text = control.value.trim();
  control.classList.toggle("changed", text !== "" && text !== said(rule.default));
}
