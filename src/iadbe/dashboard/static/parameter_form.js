// Builds a form of parameters from their JSON Schema.
import { el } from "./page.js";

/** Format a value as on the command line. */
export function formatValue(value) {
  if (Array.isArray(value)) return value.map(formatValue).join(",");
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
 * Create the fields of a schema. Returns {place, values, fill}: `values()` returns {params, sweep} of the values that
 * differ from their defaults. Several values of a scalar parameter, separated by commas, are a sweep.
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
      ? el("select", { id }, choices.map((one) => el("option", { value: formatValue(one) }, formatValue(one))))
      : el("input", { id, placeholder: formatValue(rule.default) || "none", spellcheck: "false" });
    control.setAttribute("aria-describedby", `${id}-rule`);
    if (choices) control.value = formatValue(rule.default);
    control.addEventListener("input", () => {
      mark(control, rule);
      changed();
    });
    controls.set(name, [control, rule]);
    const rest = choices ? "" : ` (${rule["x-takes"]})`;
    place.append(el("p", { class: "field" }, el("label", { for: id }, name), control, el("small", { id: `${id}-rule` }, rule.description + rest)));
  }
  if (!controls.size) place.append(el("p", { class: "muted" }, "There are no parameters."));
  if (hidden && controls.size) place.append(el("p", { class: "muted small" }, "Parameters that name files can only be set on the command line."));

  function values() {
    const params = {}, sweep = {};
    for (const [name, [control, rule]] of controls) {
      const text = control.value.trim();
      if (text === "" || text === formatValue(rule.default)) continue;
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
      found[0].value = formatValue(value);
      mark(...found);
    }
  }
  return { place, values, fill, count: controls.size };
}

function mark(control, rule) {
  const text = control.value.trim();
  control.classList.toggle("changed", text !== "" && text !== formatValue(rule.default));
}
