// Runs the model: an image file becomes score, verdict and an overlay of its heat map.
import * as ort from "./runtime/ort.wasm.min.mjs";
import { decided } from "./regions.js";

const LIFT = 0.7, STRENGTH = 0.78, LONGEST = 640;  // exponent and opacity of overlays; pixels that are shown
let session, card, colours;
let queue = Promise.resolve();

const loaded = (async () => {
  try {
    ort.env.wasm.wasmPaths = new URL("./runtime/", self.location).href;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
    ({ card, colours } = await (await fetch("model.json")).json());
    session = await ort.InferenceSession.create("model.onnx");
    self.postMessage({ kind: "ready", card });
  } catch (error) {
    self.postMessage({ kind: "broken", why: String(error.message || error) });
    throw error;
  }
})();

self.onmessage = ({ data }) => {
  queue = queue.then(() => loaded).then(() => inspect(data)).catch((error) =>
    self.postMessage({ kind: "failed", id: data.id, name: data.file.name, why: String(error.message || error) }));
};

async function inspect({ id, file }) {
  const { rgb, width, height } = await pixels(file);
  const start = performance.now();
  const found = await session.run({ image: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
  const milliseconds = performance.now() - start;
  const map = found.anomaly_map ? found.anomaly_map.data : null;
  if (!Number.isFinite(found.score.data[0]) || (map && !map.every(Number.isFinite))) {
    throw new Error("the model gives no finite score for this image; does it have the proportions of the training images?");
  }
  const byRegions = decided(map, width, height, card.calibration);
  const picture = drawn(rgb, map, width, height);
  self.postMessage({
    kind: "scored", id, name: file.name, milliseconds, picture,
    score: found.score.data[0], probability: found.probability.data[0],
    verdict: byRegions ? byRegions.verdict : Number(found.verdict.data[0]), regions: byRegions && byRegions.regions,
  }, [picture]);
}

// The stored values, without a colour profile, turned as the camera says, transparent images on black.
async function pixels(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, k = 0; i < rgba.length; i += 4) {
    rgb[k++] = rgba[i]; rgb[k++] = rgba[i + 1]; rgb[k++] = rgba[i + 2];
  }
  return { rgb, width, height };
}

// The image, with the heat map over it, no larger than it is shown.
function drawn(rgb, map, width, height) {
  const shrink = Math.max(1, Math.max(width, height) / LONGEST);
  const [w, h] = [Math.max(1, Math.round(width / shrink)), Math.max(1, Math.round(height / shrink))];
  const { low, high } = card.calibration;
  const heated = map && low != null && high != null;
  const image = new ImageData(w, h);
  for (let y = 0, k = 0; y < h; y++) {
    for (let x = 0; x < w; x++, k += 4) {
      const at = Math.min(height - 1, Math.floor((y + 0.5) * height / h)) * width
        + Math.min(width - 1, Math.floor((x + 0.5) * width / w));
      const [r, g, b] = rgb.subarray(3 * at, 3 * at + 3);
      image.data[k + 3] = 255;
      if (!heated) { image.data.set([r, g, b], k); continue; }
      const heat = Math.min(1, Math.max(0, (map[at] - low) / Math.max(high - low, 1e-12))) ** LIFT;
      const share = STRENGTH * Math.min(1, Math.max(0, heat * 1.7 - 0.2));
      const colour = colours[Math.round(heat * 255)], grey = 0.299 * r + 0.587 * g + 0.114 * b;
      [r, g, b].forEach((v, c) => {
        image.data[k + c] = (1 - share) * (0.55 * v + 0.35 * grey) + share * colour[c];
      });
    }
  }
  const canvas = new OffscreenCanvas(w, h);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.transferToImageBitmap();
}
