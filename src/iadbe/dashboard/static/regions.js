// Draws rectangles and polygons over an image: what counts, and what is ignored.
import { digits, el, pageData, toast } from "./page.js";
import { byId, capitalized, plural, send } from "./tools.js";
import { zoomable } from "./zoom.js";
import { area, corners, described, draft, inTheMiddle, inside, isLarge, moved, outline, svg, veil, withCorner, withMiddle } from "./shapes.js";

const view = pageData("region"), size = view.size, [width, height] = size;
const CLOSE = 14; // CSS pixels around the first corner where a polygon is closed
let shapes = view.shapes, chosen = null, kind = "ignore", tool = "rectangle";
let points = [], tip = null; // of the polygon that is being drawn
let drag = null, revision = view.revision, saved = JSON.stringify(shapes), shown = view.first, unit = 1;
const past = [], future = [];

const image = svg("image", { width, height, preserveAspectRatio: "none" });
const layer = svg("g");
const canvas = svg("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "group", "aria-label": `Image of ${view.category}, ${width} × ${height} pixels`, "data-key": "canvas" }, image, layer);
byId("canvas").append(canvas);
byId("canvas").style.setProperty("--aspect", width / height);

function render() {
  unit = width / (canvas.getBoundingClientRect().width || width);
  const focused = document.activeElement?.dataset?.key;
  const order = shapes.map((_, n) => n).sort((a, b) => (a === chosen) - (b === chosen)); // the chosen one lies on top
  layer.replaceChildren(...veil(shapes, size), ...order.map((n) => outline(shapes[n], n, n === chosen, unit)), points.length ? draft(points, tip, kind, unit) : "");
  canvas.dataset.tool = tool;
  if (focused && focused !== "canvas") layer.querySelector(`[data-key="${focused}"]`)?.focus({ preventScroll: true });
  press("draw-kind", "kind", chosen === null ? kind : shapes[chosen].kind);
  press("draw-tool", "tool", tool);
  byId("shapes").replaceChildren(...shapes.map(entry), shapes.length ? "" : el("li", { class: "muted" }, "Nothing is drawn: every pixel counts."));
  byId("close").hidden = points.length < 3;
  byId("undo").disabled = !past.length && !points.length;
  byId("redo").disabled = !future.length;
  byId("save").disabled = view.read_only || !isChanged();
}

function press(group, name, value) {
  for (const button of byId(group).children) button.setAttribute("aria-pressed", String(button.dataset[name] === value));
}

function entry(shape, n) {
  return el("li", { class: "entry" },
    el("button", { type: "button", class: `quiet ${shape.kind}`, "aria-pressed": String(n === chosen), onclick: () => { chosen = n; tool = "move"; render(); } }, described(shape)),
    el("button", { type: "button", class: "quiet", "aria-label": `Delete: ${described(shape)}`, onclick: () => remove(n) }, "Delete"));
}

const isChanged = () => JSON.stringify(shapes) !== saved;

/** Show other shapes, and keep the present ones for undo. */
function change(to, select = chosen) {
  if (JSON.stringify(to) === JSON.stringify(shapes)) return render();
  past.push(shapes);
  future.length = 0;
  shapes = to;
  chosen = select !== null && select < to.length ? select : null;
  byId("message").textContent = "";
  byId("counted").textContent = "";
  render();
}

function remove(n) {
  change(shapes.filter((_, i) => i !== n), null);
  canvas.focus({ preventScroll: true });
}

function add(shape) {
  if (!isLarge(shape)) return render();
  if (shapes.length >= view.max_shapes) return toast(`At most ${view.max_shapes} shapes are allowed.`, "bad");
  if ([...shapes, shape].flatMap((one) => one.points).length > view.max_corners) return toast(`At most ${view.max_corners} corners are allowed.`, "bad");
  change([...shapes, shape], shapes.length);
}

function step(from, to) {
  if (points.length && from === past) { // a polygon loses its last corner first
    points = points.slice(0, -1);
    return render();
  }
  if (!from.length) return;
  to.push(shapes);
  shapes = from.pop();
  chosen = null;
  byId("counted").textContent = "";
  render();
}

function closePolygon() {
  const shape = { kind, form: "polygon", points };
  [points, tip] = [[], null];
  if (shape.points.length < 3) return render();
  add(shape);
}

/** Return the number of the smallest shape below the pointer: a large one would cover those inside it. */
function smallest({ clientX, clientY }) {
  const below = document.elementsFromPoint(clientX, clientY).filter((one) => one.dataset?.part === "shape").map((one) => Number(one.dataset.shape));
  return below.reduce((best, n) => (area(shapes[n]) < area(shapes[best]) ? n : best));
}

function at(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || drag || view.read_only) return;
  const point = at(event), part = event.target.dataset ?? {};
  const n = part.part === "shape" ? smallest(event) : Number(part.shape), isPart = part.part && (tool === "move" || part.part !== "shape") && !points.length;
  if (isPart) {
    drag = { part: part.part, n, corner: Number(part.corner), from: point, before: shapes };
    if (part.part === "middle") {
      shapes = shapes.with(n, withMiddle(shapes[n], drag.corner));
      drag = { ...drag, part: "corner", corner: drag.corner + 1 };
    }
    chosen = n;
  } else if (tool === "polygon") {
    const to = inside(point, size), [x, y] = points[0] ?? [];
    if (points.length > 2 && Math.hypot(x - point[0], y - point[1]) < CLOSE * unit) closePolygon();
    else if (points.length < view.max_corners) points = [...points, to];
    chosen = points.length ? null : chosen;
  } else if (tool === "rectangle") {
    drag = { part: "new", from: inside(point, size), before: shapes };
    chosen = null;
  } else chosen = null;
  if (drag) canvas.setPointerCapture(event.pointerId);
  event.preventDefault(); // no selection, no focus on a part that is replaced
  canvas.focus({ preventScroll: true });
  render();
});

canvas.addEventListener("pointermove", (event) => {
  const point = at(event);
  if (!drag) {
    if (!points.length || event.pointerType === "touch") return;
    tip = inside(point, size);
    return render();
  }
  const { part, n, corner, from, before } = drag;
  if (part === "new") {
    shapes = [...before, { kind, form: "rectangle", points: [from, inside(point, size)] }];
    chosen = before.length;
  } else if (part === "corner") shapes = shapes.with(n, withCorner(shapes[n], corner, point, size));
  else shapes = before.with(n, moved(before[n], point[0] - from[0], point[1] - from[1], size));
  render();
});

function drop(isKept) {
  if (!drag) return;
  const { before } = drag, made = shapes, last = chosen;
  [drag, shapes] = [null, before];
  if (!isKept || made.some((shape) => !isLarge(shape))) {
    chosen = chosen !== null && chosen < before.length ? chosen : null;
    return render();
  }
  if (made.length > before.length) add(made.at(-1));
  else change(made, last);
}
canvas.addEventListener("pointerup", () => drop(true));
canvas.addEventListener("pointercancel", () => drop(false));
canvas.addEventListener("dblclick", () => { if (points.length > 2) closePolygon(); });

canvas.addEventListener("focusin", (event) => {
  if (event.target.dataset.part !== "shape" || drag || chosen === Number(event.target.dataset.shape)) return;
  chosen = Number(event.target.dataset.shape);
  render();
});

canvas.addEventListener("keydown", (event) => {
  const { part, shape, corner } = event.target.dataset, n = Number(shape);
  if (view.read_only || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape") {
    [points, tip, chosen] = [[], null, null];
    drop(false);
    render();
  } else if (event.key === "Enter" && !part) {
    if (points.length) closePolygon();
    else if (tool !== "move") add(inTheMiddle(kind, tool, size));
  } else if (["Delete", "Backspace"].includes(event.key)) {
    event.preventDefault();
    if (points.length) step(past, future);
    else if (part === "corner" && shapes[n].form === "polygon" && shapes[n].points.length > 3) change(shapes.with(n, { ...shapes[n], points: shapes[n].points.toSpliced(Number(corner), 1) }));
    else if (part || chosen !== null) remove(part ? n : chosen);
  } else nudge(event, part, part ? n : chosen, Number(corner));
});

function nudge(event, part, n, corner) {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if ((!x && !y) || n === null) return;
  event.preventDefault();
  const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / 100));
  if (part !== "corner") return change(shapes.with(n, moved(shapes[n], x * far, y * far, size)), n);
  const [atX, atY] = corners(shapes[n])[corner];
  const made = withCorner(shapes[n], corner, [atX + x * far, atY + y * far], size);
  if (isLarge(made)) change(shapes.with(n, made), n);
}

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.target.matches("input, select, textarea")) return;
  const key = event.key.toLowerCase();
  if (key === "z" || key === "y") {
    event.preventDefault();
    if (key === "y" || event.shiftKey) step(future, past);
    else step(past, future);
  }
});

byId("draw-kind").addEventListener("click", (event) => {
  const to = event.target.dataset.kind;
  if (!to) return;
  kind = to;
  if (tool !== "move") chosen = null; // it is the kind of the next shape
  if (chosen !== null && !view.read_only) change(shapes.with(chosen, { ...shapes[chosen], kind }));
  else render();
});
byId("draw-tool").addEventListener("click", (event) => {
  if (!event.target.dataset.tool) return;
  tool = event.target.dataset.tool;
  [points, tip] = [[], null];
  if (tool !== "move") chosen = null;
  render();
});
byId("undo").addEventListener("click", () => step(past, future));
byId("redo").addEventListener("click", () => step(future, past));
byId("close").addEventListener("click", closePolygon);

byId("save").addEventListener("click", async () => {
  const message = byId("message"), sent = JSON.stringify(shapes);
  byId("save").disabled = true;
  message.className = "message";
  message.textContent = "Saving …";
  try {
    const address = `/api/v1/datasets/${encodeURIComponent(view.name)}/regions?category=${encodeURIComponent(view.category)}`;
    const found = await send(address, { size, shapes, revision }, "PUT");
    [revision, saved] = [found.revision, sent];
    const counted = found.regions[view.category]?.counted ?? 1;
    message.textContent = shapes.length ? `Saved with ${plural(shapes.length, "shape")}. New runs use it.` : "Saved: every pixel counts.";
    byId("counted").textContent = `${digits(100 * counted, counted < 0.1 ? 2 : 1)} % of the pixels count.`;
  } catch (error) {
    message.className = "message wrong";
    message.textContent = capitalized(error.message);
  }
  render();
});

function show(n) {
  shown = n;
  const one = view.images[n];
  image.setAttribute("href", one.address);
  byId("which").textContent = `${n + 1} of ${view.images.length} · ${one.split} · ${one.defect}`;
  byId("back").disabled = n === 0;
  byId("next").disabled = n === view.images.length - 1;
}
byId("back").addEventListener("click", () => show(shown - 1));
byId("next").addEventListener("click", () => show(shown + 1));

for (const select of document.querySelectorAll("[data-submits]")) select.addEventListener("change", () => select.form.requestSubmit());
addEventListener("beforeunload", (event) => { if (isChanged() && !view.read_only) event.preventDefault(); });
zoomable(byId("canvas"), canvas, width, byId("zoom"));
new ResizeObserver(render).observe(canvas);
show(shown);
render();
