"""Curve metrics as the code of papers and tools computes them. A dialect is named after the code that it reproduces.

Differs from their code, without an effect on a number:

* Where their code crashes (no rate below the limit, or none above 0), the value is nan.
* Where one bad image makes a mean nan, that image is left out.
* Rounding before averaging (RD4AD to three digits, UniNet to 0.1) is left out.
* Everything is computed in float64, where they often use float32.

Written from what the code does, with our own counting: scores are sorted into thresholds, maps are not binarised.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from iadbe.curves.curve import EIGHT_NEIGHBOURS, Curve, PixelMap, area, region_weights

NAN = float("nan")
ADER_21 = np.arange(0.0, 1.0 + 1e-3, 0.05)
ADER_7 = np.arange(0.2, 0.8 + 1e-3, 0.1)


def equal_steps(curve: Curve, limit: float, steps: int = 200, *, from_least: bool = False) -> float:
    """Return AUPRO at ``steps`` equally spaced thresholds from the minimum score, without the maximum.

    Only rates below ``limit`` are kept. They are divided by their maximum (or scaled from minimum to maximum), with no
    point at the limit itself. Dinomaly and MuSc; with ``from_least`` ADer, and MSFlow with 800 steps.
    """
    thresholds = _grid(curve, steps)
    if thresholds is None:
        return NAN
    overlap = _overlap(curve.defect_scores, thresholds, curve.region_weights())
    return _rescaled(_rate(curve, thresholds), overlap, limit, from_least=from_least)


def simplenet(curve: Curve, limit: float) -> float:
    """Return :func:`equal_steps`, with each cut map dilated by a square of 5 x 5 before the overlap is counted.

    The rate is counted on the map as it is. SimpleNet and GLASS.
    """
    from scipy.ndimage import maximum_filter

    thresholds = _grid(curve, 200)
    if thresholds is None:
        return NAN
    dilated = np.concatenate(
        [maximum_filter(score, size=5, mode="nearest")[mask] for score, mask in _defective(curve)]
    )  # thresholding the map of local maxima dilates the thresholded map
    overlap = _overlap(dilated, thresholds, curve.region_weights())
    return _rescaled(_rate(curve, thresholds), overlap, limit)


def cflow(curve: Curve, limit: float) -> float:
    """Return AUPRO at 1000 equally spaced thresholds from the maximum score, without the minimum.

    A region's holes count in the overlap but not in its area, so an overlap may exceed 1. CFLOW, DFR, RealNet.
    """
    from scipy.ndimage import binary_fill_holes, find_objects, label

    low, high = curve.range
    if not high > low:
        return NAN
    thresholds = (high - (high - low) / 1000 * np.arange(1000))[::-1]
    scores, shares = [], []
    for score, mask in _defective(curve):
        labels, _ = label(mask, structure=EIGHT_NEIGHBOURS)
        for number, where in enumerate(find_objects(labels), start=1):
            region = labels[where] == number
            filled = binary_fill_holes(region, structure=EIGHT_NEIGHBOURS)
            scores.append(score[where][filled])
            shares.append(np.full(scores[-1].size, 1 / np.count_nonzero(region)))
    overlap = _above(np.concatenate(scores), thresholds, np.concatenate(shares)) / len(scores)
    return _rescaled(_rate(curve, thresholds), overlap, limit, from_least=True, with_limit=True)


def rd4ad(curve: Curve, limit: float) -> float:
    """Return the mean over defective images of :func:`equal_steps` on each alone; good images do not count."""
    shown = (one for one in curve.maps() if one.truth.any() and one.clean.any())
    values = np.array([equal_steps(_alone(one), limit) for one in shown])
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else NAN


def mvtec_3d(curve: Curve, limit: float, count: int = 100) -> float:
    """Return AUPRO at ``count`` thresholds of equally spaced ranks among the clean pixels, cut at the limit.

    MVTec 3D-AD's own evaluation; also M3DM, BTF, open-iad, IM-IAD.
    """
    places = np.linspace(0, curve.negatives - 1, count, dtype=int)
    thresholds = curve.clean_at(places)
    rate = np.append(1.0, 1.0 - (places + 1) / curve.negatives)[::-1]
    overlap = np.append(1.0, _overlap(curve.defect_scores, thresholds, curve.region_weights()))[::-1]
    return area([(rate, overlap)], limit)


def anomalib(curve: Curve, limit: float) -> float:
    """Return AUPRO as the mean of one ROC curve per region, resampled to a common length by index, not by rate.

    Each region is compared with all clean pixels. anomalib up to 2.5, with code that DeSTSeg and SuperSimpleNet
    use too. As slow as the original: every region has a curve through all clean pixels. nan where more of the clean
    pixels tie at their highest score than the limit allows.
    """
    from scipy.ndimage import label

    # the rates up to the first beyond the limit; one rank more, because they are compared as rounded shares
    lowest = curve.clean_at([max(0, curve.negatives - int(limit * curve.negatives) - 2)])[0]
    highest = [part[part >= lowest] for part in curve.clean_parts()]
    clean, counts = np.unique(np.concatenate(highest), return_counts=True)
    clean, false = clean[::-1], np.cumsum(counts[::-1]) / curve.negatives
    if false[0] > limit:
        return NAN
    used = int(np.searchsorted(false, limit, side="right")) + 1  # and the first rate beyond the limit
    clean, false = clean[:used], false[:used]
    length = int(np.count_nonzero(_roc(clean, false, curve.defect_scores)[0] <= limit))
    rate, height, regions = np.zeros(length), np.zeros(length), 0
    for score, mask in _defective(curve):
        labels, count = label(mask, structure=EIGHT_NEIGHBOURS)
        for number in range(1, count + 1):
            own_rate, own_height = _resampled(*_roc(clean, false, score[labels == number]), limit, length)
            rate, height, regions = rate + own_rate, height + own_height, regions + 1
    order = np.argsort(rate, kind="stable")
    return float(_trapezoids(height[order], rate[order]) / rate[-1] / regions)


def adeval_aupro(curve: Curve, limit: float, bins: int = 1000) -> float:
    """Return AUPRO over bins of equal width, cut at the limit. ADEval; with 50 bins ADer."""
    edges = _edges(curve, bins)
    if edges is None:
        return NAN
    rate = _clean_from(curve, edges)[::-1] / curve.negatives
    overlap = _from(curve.defect_scores, edges, shares := curve.region_weights())[::-1] / _regions(shares)
    return area([(rate, overlap)], limit) if rate[0] <= limit else NAN  # from the first rate on, not from 0


def adeval_auroc(curve: Curve, bins: int = 1000) -> float:
    """Return AUROC by trapezoids over bins of equal width. ADEval; with 50 bins ADer."""
    edges = _edges(curve, bins)
    if edges is None:
        return NAN
    rate, found = _clean_from(curve, edges) / curve.negatives, _from(curve.defect_scores, edges)
    return _trapezoids(found[::-1] / curve.positives, rate[::-1])


def adeval_ap(curve: Curve, bins: int = 1000) -> float:
    """Return AP by trapezoids, from precision over recall in bins of equal width. ADEval; with 50 bins ADer."""
    edges = _edges(curve, bins)
    if edges is None:
        return NAN
    found, false = _from(curve.defect_scores, edges), _clean_from(curve, edges)
    precision = np.where(found + false > 0, found / np.maximum(found + false, 1), 1.0)
    return _trapezoids(precision[::-1], found[::-1] / curve.positives)


def ader_f1max(curve: Curve) -> float:
    """Return the best F1 of 21 thresholds on the scores scaled to [0, 1]. ADer's ``mF1_max_px``."""
    found, called = counts_above_scaled(curve, ADER_21)
    precision, recall = found / (called + 1e-8), found / (curve.positives + 1e-8)
    return float(np.max(2 * precision * recall / (precision + recall + 1e-8)))


def ader_iou_max(curve: Curve) -> float:
    """Return the best IoU of 21 thresholds on the scores scaled to [0, 1]. ADer's ``mIoU_max_px``."""
    found, called = counts_above_scaled(curve, ADER_21)
    return float(np.max(found / (called + curve.positives - found + 1e-8)))


def ader_means(curve: Curve) -> tuple[float, float, float]:
    """Return the means of F1, recall and IoU at 7 thresholds on the scores scaled to [0, 1]. ADer, for COCO-AD."""
    found, called = counts_above_scaled(curve, ADER_7)
    precision, recall = found / (called + 1e-8), found / (curve.positives + 1e-8)
    f1, iou = 2 * precision * recall / (precision + recall + 1e-8), found / (called + curve.positives - found + 1e-8)
    return float(f1.mean()), float(recall.mean()), float(iou.mean())


def counts_above_scaled(curve: Curve, thresholds: np.ndarray, slack: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return (defects, all) more than ``slack`` above each threshold on the scores scaled to [0, 1] over all of them.

    Both are nan where all scores are equal.
    """
    low, high = curve.range
    if not high > low:
        return np.full(thresholds.size, NAN), np.full(thresholds.size, NAN)
    found = _above((curve.defect_scores.astype(np.float64) - low) / (high - low), thresholds + slack)
    parts = (_above((part.astype(np.float64) - low) / (high - low), thresholds + slack) for part in curve.clean_parts())
    false = np.sum([*parts], axis=0)
    return found, found + false


def orthoad_aupro(curve: Curve, limit: float) -> float:
    """Return AUPRO with overlap a mean over images of the mean over their regions, the rate a mean over images."""
    return _orthoad(curve, limit, by_region=True)


def orthoad_auroc(curve: Curve) -> float:
    """Return AUROC with both rates means over images. OrthoAD."""
    return _orthoad(curve, 1.0, by_region=False)


def orthoad_paddle(curve: Curve, limit: float, count: int = 500) -> float:
    """Return AUPRO of OrthoAD's port to Paddle: rate and overlap are scaled to [0, 1] over the points that are kept.

    Thresholds are equally spaced ranks of the map with the top score, from the highest down to the first with a rate
    above the limit. The overlap is a mean over defective images of the mean over their regions; the rate is pooled.
    Scaling loses the level of the overlap, and the axis ends at the last rate, not at the limit.
    """
    top = np.sort(_map_of_top_score(curve))
    thresholds = top[np.linspace(0, top.size - 1, count).astype(int)]
    rate = _rate(curve, thresholds)[::-1]
    overlaps = [_overlap(score[mask], thresholds, region_weights(mask[None])) for score, mask in _defective(curve)]
    overlap = np.mean(overlaps, axis=0)[::-1]
    kept = int(np.searchsorted(rate, limit, side="right")) + 1
    x, y = rate[:kept], overlap[:kept]
    if not (x[-1] > x[0] and y[-1] > y[0]):
        return NAN
    return _trapezoids((y - y[0]) / (y[-1] - y[0]), (x - x[0]) / (x[-1] - x[0]))


def four_connected(curve: Curve, limit: float) -> float:
    """Return the exact AUPRO of regions whose pixels share a side: the default of ``scipy.ndimage.label``."""
    sides = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
    return area(curve.corners(curve.cumulative_overlap(curve.region_weights(sides))), limit)


def binarised_at_half(curve: Curve) -> Curve:
    """Return the curve of scores scaled to [0, 1] over all of them and cut at 0.5: 1 from there on, else 0.

    open-iad's PatchCore does so before any pixel metric. Where all scores are equal, nothing is above.
    """
    low, high = curve.range
    return curve.rescored(lambda score: ((score - low) / (high - low or 1.0) >= 0.5).astype(np.float32))


def _trapezoids(y: np.ndarray, x: np.ndarray) -> float:
    return float(np.dot(np.diff(x), y[1:] + y[:-1]) / 2)


def _alone(one: PixelMap) -> Curve:
    return Curve(one.truth[None], one.score[None], region=None if one.region is None else one.region[None])


def _grid(curve: Curve, steps: int) -> np.ndarray | None:
    low, high = curve.range
    return low + (high - low) / steps * np.arange(steps) if high > low else None


def _defective(curve: Curve) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (map, mask) of each image with a defect, in order; the map is -inf where pixels do not count."""
    return ((one.masked, one.truth) for one in curve.maps() if one.truth.any())


def _above(scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the number, or the weight, of scores strictly above each rising threshold."""
    held = np.bincount(np.searchsorted(thresholds, scores, side="left"), weights, thresholds.size + 1)
    return held[::-1].cumsum()[::-1][1:]


def _overlap(scores: np.ndarray, thresholds: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the mean over regions of what lies strictly above each rising threshold."""
    return _above(scores, thresholds, shares) / _regions(shares)


def _regions(weights: np.ndarray) -> float:
    """Return the number of regions, whose pixels' weights sum to 1 each."""
    return float(np.rint(weights.sum()))


def _rate(curve: Curve, thresholds: np.ndarray) -> np.ndarray:
    rate: np.ndarray = np.sum([_above(part, thresholds) for part in curve.clean_parts()], axis=0) / curve.negatives
    return rate


def _rescaled(
    rate: np.ndarray, overlap: np.ndarray, limit: float, *, from_least: bool = False, with_limit: bool = False
) -> float:
    """Return the area over the rates below (or up to) the limit, scaled to end at 1; thresholds rise, so rates fall."""
    kept = rate <= limit if with_limit else rate < limit
    x, y = rate[kept][::-1], overlap[kept][::-1]
    least = x[0] if from_least and x.size else 0.0
    if x.size < 2 or not x[-1] > least:
        return NAN
    return _trapezoids(y, (x - least) / (x[-1] - least))


def _roc(clean: np.ndarray, false: np.ndarray, defects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (false, true positive rate) from (0, 0) on, a point for each distinct score.

    ``clean`` are distinct scores, falling, with their rates ``false``; defects below the last of them are left out.
    """
    own, counts = np.unique(defects[defects >= clean[-1]], return_counts=True)
    own, counts = own[::-1], counts[::-1]
    place = np.searchsorted(-clean, -own, side="left")
    new = clean[np.minimum(place, clean.size - 1)] != own
    before = np.append(0.0, false)
    rate = np.append(0.0, np.insert(false, place[new], before[place[new]]))
    steps = np.zeros(rate.size)
    steps[1 + place + np.cumsum(new) - new] = counts / defects.size
    return rate, np.cumsum(steps)


def _resampled(rate: np.ndarray, height: np.ndarray, limit: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a region's curve up to the limit at ``length`` points of equal distance in position."""
    count = int(np.searchsorted(rate, limit, side="right"))
    at, scaled = np.arange(length, dtype=float), np.arange(count, dtype=float)
    if np.isclose(rate[count - 1], limit):
        scaled *= (length - 1) / (count - 1)
    else:  # one point more, and the last sample is where the line to it meets the limit
        scaled = np.arange(count + 1) * ((length - 1) / count)
        part = (limit - rate[count - 1]) / (rate[count] - rate[count - 1])
        at[-1] = scaled[-2] + (scaled[-1] - scaled[-2]) * part
    return np.interp(at, scaled, rate[: scaled.size]), np.interp(at, scaled, height[: scaled.size])


def _edges(curve: Curve, bins: int) -> np.ndarray | None:
    low, high = curve.range
    return np.linspace(0.0, 1.0, bins + 1) * (high - low) + low if high > low else None


def _from(scores: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the number, or the weight, of scores at or above each rising edge."""
    held = np.bincount(np.searchsorted(edges, scores, side="right"), weights, edges.size + 1)
    return held[::-1].cumsum()[::-1][1:]


def _clean_from(curve: Curve, edges: np.ndarray) -> np.ndarray:
    """Return the number of clean scores at or above each rising edge."""
    return np.sum([_from(part, edges) for part in curve.clean_parts()], axis=0)


def _map_of_top_score(curve: Curve) -> np.ndarray:
    """Return the pixels of the map that holds the highest score."""
    highest = [float(one.counted_scores.max()) for one in curve.maps()]
    return curve.map(int(np.argmax(highest))).counted_scores


def _orthoad(curve: Curve, limit: float, *, by_region: bool, count: int = 1000) -> float:
    top = _map_of_top_score(curve)
    places = np.maximum(1, np.floor(top.size * np.arange(1, count + 1) / count).astype(int)) - 1
    thresholds = np.sort(top)[places]
    rates, heights = [], []
    for one in curve.maps():
        score, mask, clean = one.score, one.truth, one.clean
        if clean.any():
            rates.append(_above(score[clean], thresholds) / np.count_nonzero(clean))
        if mask.any():
            shares = region_weights(mask[None]) if by_region else np.full(np.count_nonzero(mask), 1 / mask.sum())
            heights.append(_overlap(score[mask], thresholds, shares))
    rate, height = np.mean(rates, axis=0)[::-1], np.mean(heights, axis=0)[::-1]
    last = int(np.searchsorted(rate, limit, side="right"))  # the first rate above the limit ends it
    points = dict(zip(rate[: last + 1], height[: last + 1], strict=True))  # of equal rates the lowest threshold stays
    x, y = np.array([*points]), np.array([*points.values()])
    total = x[0] * y[0] / 2 + float(np.sum(np.diff(x[:-1]) * (y[1:-1] + y[:-2])) / 2)
    if x.size > 1:  # half of the last step, whatever lies beyond the limit
        total += (limit - x[-2]) * ((y[-1] + y[-2]) / 2 + y[-2]) / 2
    return float(total / limit)
