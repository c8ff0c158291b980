// Refreshes the list of jobs when a job changes its state, and regularly while one is unfinished.
import { byId, duration } from "./tools.js";

let last = 0, timer;

function times(root) {
  for (const cell of root.querySelectorAll("[data-from]")) {
    cell.textContent = duration(Math.max(0, (Number(cell.dataset.to) || Date.now() / 1000) - Number(cell.dataset.from)));
  }
  for (const time of root.querySelectorAll("time[data-seconds]")) {
    time.textContent = new Date(Number(time.dataset.seconds) * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

async function refresh() {
  clearTimeout(timer);
  const wait = Math.max(0, last + 1000 - Date.now());
  timer = setTimeout(async () => {
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const what of ["#live", ".tabs"]) {
        const [old, now] = [document.querySelector(what), page.querySelector(what)];
        if (!old || !now) continue;
        times(now);
        if (old.innerHTML !== now.innerHTML && !old.contains(document.activeElement)) old.replaceWith(document.adoptNode(now));
      }
    } catch {
      // the server is away: the event stream below reconnects
    }
    scheduleRefresh();
  }, wait);
}

function scheduleRefresh() {
  if (byId("live").dataset.busy === "yes" && document.visibilityState === "visible") timer = setTimeout(refresh, 2500);
}

times(document);
let away = false;

function listen() {
  const stream = new EventSource("/api/v1/events");
  stream.addEventListener("state", refresh);
  stream.onerror = () => {
    away = true;
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000); // after an answer such as 503, a browser gives up
  };
  stream.onopen = () => {
    if (away) refresh();
    away = false;
  };
}

listen();
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh());
scheduleRefresh();
