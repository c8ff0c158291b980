// A test image with heat map and outlined defect, both with adjustable opacity.
import { brief, el } from "./page.js";

/**
 * Create a tile. `image` is an entry of /api/v1/images: {sample, category, defect, score, links: {input, heat, mask}}.
 * Links may be blob addresses. `more` is added to the caption: texts or elements, such as a badge.
 */
export function tile(image, { more = [], caption = true, zoom = true } = {}) {
  const { links, defect, sample } = image;
  if (!links.input) return el("figure", { class: "tile" }, el("div", { class: "blank" }, "The image was not stored"), captionOf(image, more, caption));
  const about = `${defect === "good" ? "Good part" : defect === "unlabelled" ? "Image without a label" : defect ? `Defect: ${defect}` : "Image"}, ${sample}, score ${brief(image.score)}`;
  const layers = [el("img", { src: links.input, alt: about, loading: "lazy", decoding: "async" })];
  if (links.heat) layers.push(el("img", { class: "heat", src: links.heat, alt: "", loading: "lazy", decoding: "async" }));
  if (links.mask) layers.push(mask(links));
  const frame = zoom
    ? el("button", { type: "button", class: "layers", title: sample, onclick: () => enlarge(image, more) }, layers)
    : el("div", { class: "layers" }, layers);
  return el("figure", { class: "tile" }, frame, captionOf(image, more, caption));
}

function captionOf(image, more, caption) {
  if (!caption) return null;
  return el("figcaption", {}, image.defect ? el("span", {}, image.defect) : null, more,
    image.score === undefined ? null : el("span", { class: "score" }, brief(image.score)));
}

/** Create the outline of a mask, in a colour that the heat map does not use. */
function mask(links) {
  const outline = el("img", { class: "outline", alt: "", hidden: true });
  const image = new Image();
  image.onload = () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    const drawing = new OffscreenCanvas(width, height).getContext("2d");
    drawing.drawImage(image, 0, 0);
    const pixels = drawing.getImageData(0, 0, width, height);
    const data = new Uint32Array(pixels.data.buffer), inside = data.map((v) => (v & 0xff) > 127);
    const thick = Math.max(1, Math.round(width / 160));
    const is = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x];
    const out = new Uint32Array(data.length);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      if (!is(x, y)) continue;
      if (!is(x - thick, y) || !is(x + thick, y) || !is(x, y - thick) || !is(x, y + thick)) out[y * width + x] = 0xffeed620;
    }
    pixels.data.set(new Uint8ClampedArray(out.buffer));
    drawing.putImageData(pixels, 0, 0);
    drawing.canvas.convertToBlob().then((blob) => {
      outline.src = URL.createObjectURL(blob);
      outline.onload = () => URL.revokeObjectURL(outline.src);
      outline.hidden = false;
    });
  };
  image.src = links.mask;
  return outline;
}

/** Show an enlarged tile in a dialog. */
export function enlarge(image, more = []) {
  const copies = more.map((part) => (part instanceof Node ? part.cloneNode(true) : part));
  const close = el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close");
  const dialog = el("dialog", { class: "zoom", "aria-label": image.sample },
    el("div", { class: "bar" }, el("code", {}, image.sample), close),
    tile(image, { more: copies, zoom: false }));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
}

/** Create the controls of all tiles below `root`: opacity of the heat map, and whether defects are outlined. */
export function mixer(root) {
  const opacity = el("input", { type: "range", min: "0", max: "100", value: "60", "aria-label": "Opacity of the heat map" });
  const outlined = el("input", { type: "checkbox", checked: true });
  opacity.addEventListener("input", () => root.style.setProperty("--heat-opacity", opacity.value / 100));
  outlined.addEventListener("change", () => root.style.setProperty("--outline-opacity", outlined.checked ? 1 : 0));
  return el("div", { class: "mix" },
    el("div", { class: "field" }, el("span", { class: "label" }, "Heat"), opacity),
    el("label", { class: "check" }, outlined, "Outline defects"));
}
