// Verdicts by connected regions of an anomaly map, as iadbe.runtime.regions gives them; tests compare both.
const GOOD = 0, LOOK = 1, REJECT = 2;

/** Return null where the calibration has no rule for regions, else { verdict, regions }, the highest peaks first. */
export function decided(map, width, height, calibration) {
  const { rule, pixel_threshold: threshold, look_pixel_threshold: look } = calibration;
  if (!rule || !map || threshold === null || threshold === undefined) return null;
  const zones = zoneNumbers(rule.zones, width, height);
  const found = regionsOf(map, width, height, threshold, rule, zones);
  if (found.length > rule.max_count) return { verdict: REJECT, regions: found };
  if (look !== null && look !== undefined) {
    const wider = regionsOf(map, width, height, look, rule, zones);
    if (wider.length > rule.max_count) return { verdict: LOOK, regions: wider };
  }
  return { verdict: GOOD, regions: found };
}

/** Return the regions that count: pixels from the threshold on that share a side or a corner. */
export function regionsOf(map, width, height, threshold, rule, zones) {
  const limits = [threshold, ...rule.zones.map((zone) => zone.threshold ?? threshold)].map(Math.fround); // as the map
  const parent = new Int32Array(width * height).fill(-1); // of marked pixels, the first of their region in the end
  const root = (pixel) => {
    while (parent[pixel] !== pixel) pixel = parent[pixel] = parent[parent[pixel]];
    return pixel;
  };
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!(map[at] >= limits[zones ? zones[at] : 0])) continue;
      parent[at] = at;
      const above = y > 0 ? [x > 0 ? at - width - 1 : -1, at - width, x < width - 1 ? at - width + 1 : -1] : [];
      for (const other of [x > 0 ? at - 1 : -1, ...above]) {
        if (other < 0 || parent[other] < 0) continue;
        const [a, b] = [root(at), root(other)];
        parent[Math.max(a, b)] = Math.min(a, b);
      }
    }
  }
  const found = new Map();
  for (let at = 0; at < parent.length; at++) {
    if (parent[at] < 0) continue;
    const first = root(at), x = at % width, y = (at - x) / width;
    let region = found.get(first);
    if (!region) found.set(first, region = { area: 0, left: x, top: y, right: x, bottom: y, peak: -Infinity, highest: at });
    region.area += 1;
    region.left = Math.min(region.left, x);
    region.right = Math.max(region.right, x);
    region.bottom = y;
    if (map[at] > region.peak) [region.peak, region.highest] = [map[at], at];
  }
  return [...found.values()].filter((one) => one.area >= rule.min_area).sort((a, b) => b.peak - a.peak).map((one) => ({
    area: one.area, box: [one.left, one.top, one.right - one.left + 1, one.bottom - one.top + 1], peak: one.peak,
    zone: zones && zones[one.highest] ? rule.zones[zones[one.highest] - 1].name : null,
  }));
}

/** Return the number of the zone of each pixel, 0 outside; null without zones. Throws where the proportions differ. */
export function zoneNumbers(zones, width, height) {
  if (!zones.length) return null;
  const numbers = new Uint8Array(width * height);
  for (let n = zones.length; n > 0; n--) { // a pixel belongs to the first of several
    const { size: [rows, columns], runs } = zones[n - 1];
    if (Math.abs(rows * (width / columns) - height) > 1 + width / columns) {
      throw new Error(`the zones of the model are drawn on an image of ${columns} x ${rows} pixels, and this one, `
        + `${width} x ${height}, has other proportions`);
    }
    const mask = new Uint8Array(rows * columns);
    let at = 0;
    runs.split(" ").map(Number).forEach((length, k) => { mask.fill(k % 2, at, at += length); });
    const [above, left] = [nearest(rows, height), nearest(columns, width)];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) if (mask[above[y] * columns + left[x]]) numbers[y * width + x] = n;
    }
  }
  return numbers;
}

/** Return the nearest of `from` pixels for each of `to`, with Pillow's sums, whose rounding decides between two. */
function nearest(from, to) {
  const step = from / to, found = new Int32Array(to);
  for (let k = 0, at = step * 0.5; k < to; k++, at += step) found[k] = Math.min(from - 1, Math.trunc(at));
  return found;
}
