// Shapes drawn over an image: their geometry in pixels of the image, and the SVG that shows them.

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(properties)) if (value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...children.filter(Boolean));
  return made;
}

/** Return all corners of a shape in order. A rectangle is kept by two opposite corners. */
export function corners({ form, points }) {
  if (form === "polygon") return points;
  const [[left, top], [right, bottom]] = points;
  return [[left, top], [right, top], [right, bottom], [left, bottom]];
}

/** Return a shape's left, top, right and bottom. */
export function bounds({ points }) {
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Return the pixels of the rectangle around a shape. */
export function area(shape) {
  const [left, top, right, bottom] = bounds(shape);
  return (right - left) * (bottom - top);
}

/** Return whether a shape has an area that the server takes. */
export function isLarge(shape) {
  const [left, top, right, bottom] = bounds(shape);
  return right - left >= 1 && bottom - top >= 1;
}

/** Return a shape moved by whole pixels, within the image. */
export function moved(shape, dx, dy, [width, height]) {
  const [left, top, right, bottom] = bounds(shape);
  const x = Math.round(Math.min(Math.max(dx, -left), width - right)), y = Math.round(Math.min(Math.max(dy, -top), height - bottom));
  return { ...shape, points: shape.points.map((point) => [point[0] + x, point[1] + y]) };
}

/** Return a shape with one corner elsewhere, within the image. Of a rectangle, the opposite corner stays. */
export function withCorner(shape, n, to, size) {
  const [x, y] = inside(to, size);
  if (shape.form === "polygon") return { ...shape, points: shape.points.with(n, [x, y]) };
  const [[left, top], [right, bottom]] = shape.points;
  return { ...shape, points: [[[x, y], [right, bottom]], [[left, y], [x, bottom]], [[left, top], [x, y]], [[x, top], [right, y]]][n] };
}

/** Return a polygon with a new corner after corner n, in the middle of that side. */
export function withMiddle(shape, n) {
  const [x0, y0] = shape.points[n], [x1, y1] = shape.points[(n + 1) % shape.points.length];
  return { ...shape, points: shape.points.toSpliced(n + 1, 0, [Math.round((x0 + x1) / 2), Math.round((y0 + y1) / 2)]) };
}

/** Return a point in whole pixels of the image. */
export function inside([x, y], [width, height]) {
  return [Math.round(Math.min(Math.max(x, 0), width)), Math.round(Math.min(Math.max(y, 0), height))];
}

/** Return a new shape in the middle of the image, for the keyboard. */
export function inTheMiddle(kind, form, [width, height]) {
  const rectangle = [[width / 4, height / 4], [(3 * width) / 4, (3 * height) / 4]];
  const around = [...Array(6).keys()].map((n) => [width / 2 + (width / 4) * Math.cos((n * Math.PI) / 3), height / 2 + (height / 4) * Math.sin((n * Math.PI) / 3)]);
  return { kind, form, points: (form === "rectangle" ? rectangle : around).map((point) => inside(point, [width, height])) };
}

/** Describe a shape in a few words. */
export function described(shape) {
  const [left, top, right, bottom] = bounds(shape);
  const what = `${shape.kind === "roi" ? "Region of interest" : "Ignored"}, ${shape.form}`;
  return `${what}, ${right - left} × ${bottom - top} pixels at ${left}, ${top}`;
}

const path = (points, closed = true) => (points.length ? `M${points.map((point) => point.join(" ")).join("L")}${closed ? "Z" : ""}` : "");

/** Create the layer that greys what does not count. */
export function veil(shapes, [width, height]) {
  const whole = { x: 0, y: 0, width, height };
  const only = shapes.filter((shape) => shape.kind === "roi"), without = shapes.filter((shape) => shape.kind === "ignore");
  const mask = svg("mask", { id: "greyed", maskUnits: "userSpaceOnUse", ...whole },
    svg("rect", { ...whole, fill: only.length ? "white" : "black" }),
    ...only.map((shape) => svg("path", { d: path(corners(shape)), fill: "black" })),
    ...without.map((shape) => svg("path", { d: path(corners(shape)), fill: "white" })));
  return [mask, svg("rect", { ...whole, class: "veil", mask: "url(#greyed)" })];
}

/** Create the outline of a shape, with handles where it is chosen. `unit` is one CSS pixel in pixels of the image. */
export function outline(shape, n, isChosen, unit) {
  const d = path(corners(shape));
  const group = svg("g", { class: `shape ${shape.kind}${isChosen ? " chosen" : ""}` },
    svg("path", { class: "casing", d }),
    svg("path", { class: "line", d, tabindex: 0, role: "button", "aria-pressed": String(isChosen), "aria-label": described(shape), "data-part": "shape", "data-shape": n, "data-key": `shape-${n}` }));
  if (!isChosen) return group;
  if (shape.form === "polygon") for (const [i] of shape.points.entries()) {
    const [x, y] = withMiddle(shape, i).points[i + 1];
    group.append(svg("circle", { class: "middle", cx: x, cy: y, r: 4 * unit }), svg("circle", { class: "reach", cx: x, cy: y, r: 11 * unit, "data-part": "middle", "data-shape": n, "data-corner": i }));
  }
  for (const [i, [x, y]] of corners(shape).entries()) {
    group.append(svg("circle", { class: "handle", cx: x, cy: y, r: 6 * unit }),
      svg("circle", { class: "reach", cx: x, cy: y, r: 16 * unit, tabindex: 0, role: "button", "aria-label": `Corner ${i + 1} at ${x}, ${y}`, "data-part": "corner", "data-shape": n, "data-corner": i, "data-key": `corner-${n}-${i}` }));
  }
  return group;
}

/** Create the polygon that is being drawn; `tip` is where the pointer is. */
export function draft(points, tip, kind, unit) {
  const d = path(tip ? [...points, tip] : points, false);
  return svg("g", { class: `shape draft ${kind}` }, svg("path", { class: "casing", d }), svg("path", { class: "line", d }),
    ...points.map(([x, y], n) => svg("circle", { class: n ? "handle" : "handle start", cx: x, cy: y, r: (n ? 5 : 8) * unit })));
}
