// Shared by interactive pages: sending to the API, formatting times and sizes, and downloads.
import { fetchJson, el } from "./page.js";

export const byId = (id) => document.getElementById(id);

/** Send JSON, or a form with files, to the API. */
export function send(address, body, method = "POST", options = {}) {
  if (body instanceof FormData) return fetchJson(address, { method, body, ...options });
  return fetchJson(address, { method, body: JSON.stringify(body ?? {}), headers: { "Content-Type": "application/json" }, ...options });
}

export const capitalized = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(size) {
  if (!size) return "–";
  const [unit, share] = size >= 1e9 ? ["GB", 1e9] : size >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  return `${(size / share).toFixed(size / share < 10 ? 1 : 0)} ${unit}`;
}

export const when = (seconds) => new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** Download a file. */
export function save(name, data, type) {
  const link = el("a", { href: URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// format times in the reader's own time zone
for (const time of document.querySelectorAll("time[data-seconds]")) {
  const seconds = Number(time.dataset.seconds);
  time.dateTime = new Date(seconds * 1000).toISOString();
  time.textContent = when(seconds);
}
for (const button of document.querySelectorAll("[data-opens]")) {
  const target = byId(button.dataset.opens);
  button.addEventListener("click", () => {
    target.hidden = !target.hidden;
    button.setAttribute("aria-expanded", String(!target.hidden));
    if (!target.hidden) target.querySelector("input, select, button")?.focus();
  });
}
document.documentElement.classList.add("scripted");
