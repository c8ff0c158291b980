// Plotly charts in the colours of the page. Plotly is loaded once, when the first chart is about to become visible.
import { showState } from "./page.js";

let library;
const drawn = new Set();

/** Load Plotly from this server. */
export function plotly() {
  library ??= new Promise((resolve, reject) => {
    const address = document.documentElement.dataset.plotly;
    if (!address) {
      reject(new Error("Charts need the Python package plotly on the server: pip install 'iadbe[web]'"));
      return;
    }
    const sheet = document.createElement("meta"); // tells Plotly that the page already has its styles
    sheet.id = "plotly.js-style-global";
    sheet.className = "no-inline-styles";
    const script = document.createElement("script");
    const back = withoutStyles();
    script.src = address;
    script.onload = () => (back(), resolve(globalThis.Plotly));
    script.onerror = () => (back(), reject(new Error("The charts could not be loaded.")));
    document.head.append(sheet, script);
  });
  return library;
}

/**
 * Make Plotly obey the content security policy, which forbids inline styles. While it loads, it creates a style element
 * for maps: it gets an inert template instead. A style attribute is set through the element's style object, which is
 * allowed. Returns a function that restores createElement.
 */
function withoutStyles() {
  const make = document.createElement, set = Element.prototype.setAttribute;
  document.createElement = function (name, ...rest) {
    return make.call(this, name === "style" ? "template" : name, ...rest);
  };
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };
  return () => delete document.createElement;
}

/** Return a colour of the style sheet in a form that Plotly reads; `opacity` in [0, 1]. */
export function colour(name, opacity = 1) {
  const probe = document.createElement("i");
  probe.style.color = `rgb(from var(--${name}) r g b / ${opacity})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  const parts = found.match(/^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)(?: \/ ([\d.e-]+))?\)$/);
  if (!parts) return found;
  const [r, g, b] = parts.slice(1, 4).map((part) => Math.round(255 * part));
  return `rgba(${r}, ${g}, ${b}, ${parts[4] ?? 1})`;
}

/** Return the colour of the nth series, from a palette that is safe for colour-blind readers. */
export function series(n, opacity = 1) {
  return colour(`c${(n % 6) + 1}`, opacity);
}

export const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
export const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];

function themed(layout) {
  const text = colour("text"), muted = colour("muted"), line = colour("line");
  const axis = {
    gridcolor: line, linecolor: colour("edge"), zerolinecolor: line, tickcolor: line, ticks: "", automargin: true,
    tickfont: { color: muted, size: 12 }, title: { font: { color: muted, size: 13 }, standoff: 12 },
  };
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, dragmode: false,
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 13, color: text },
    margin: { l: 54, r: 16, t: 14, b: 46 }, hovermode: "closest", showlegend: false,
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("edge"), font: { color: text, size: 13 }, align: "left" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: text, size: 13 }, bgcolor: "rgba(0,0,0,0)" },
    ...layout,
  };
  for (const name of ["xaxis", "yaxis", "yaxis2"]) {
    if (name === "yaxis2" && !layout[name]) continue;
    const own = layout[name] ?? {};
    const title = typeof own.title === "string" ? { text: own.title } : own.title;
    made[name] = { ...axis, ...own, title: { ...axis.title, ...title } };
  }
  return made;
}

/**
 * Draw a chart into `place` when it is about to become visible, and redraw it when the theme changes.
 * `make` returns {data, layout} and is called for every drawing. `label` describes the chart for screen readers.
 * Returns a function that redraws the chart.
 */
export function chart(place, make, label) {
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  const one = { place, make };
  one.draw = async () => {
    if (!one.seen) return;
    try {
      const Plotly = await plotly();
      const { data, layout = {} } = one.make();
      await Plotly.react(place, data, themed(layout), { displayModeBar: false, responsive: true, doubleClick: false });
      place.querySelector(":scope > .loading")?.remove();
      place.dataset.ready = "1";
    } catch (error) {
      place.removeAttribute("role");
      showState(place, "error", error.message);
    }
  };
  drawn.add(one);
  new IntersectionObserver((entries, watch) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    one.seen = true;
    one.draw();
  }, { rootMargin: "300px" }).observe(place);
  return one.draw;
}

document.addEventListener("themechange", () => {
  for (const one of drawn) if (one.place.isConnected) one.draw();
    else drawn.delete(one);
});
