"""Time the exact AUROC, AP, F1max and AUPRO of maps against sorting all pixels again for each metric; and of AUPIMO.

Run: python benchmarks/metrics.py [--large]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter, label

from iadbe.curves.curve import Curve
from iadbe.metrics.ap import AP
from iadbe.metrics.aupimo import AUPIMO
from iadbe.metrics.aupro import AUPRO
from iadbe.metrics.auroc import AUROC
from iadbe.metrics.f1max import F1Max

LIMIT = 0.3


def draw(images: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw maps (N, H, W) float32 of smooth noise; three of four images hold one to five round defects."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((images, size, size), dtype=bool)
    score = np.empty((images, size, size), dtype=np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    for n in range(images):
        for _ in range(0 if n % 4 == 0 else rng.integers(1, 6)):
            y, x, radius = *rng.integers(0, size, 2), size * rng.uniform(0.02, 0.09)
            truth[n] |= (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        noise = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 2.0)
        score[n] = np.exp(noise / noise.std() + 1.5 * gaussian_filter(truth[n].astype(np.float32), size / 128))
    return truth, score


def together(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Count once, read off four times, as a run does."""
    curve = Curve(truth, score)
    metrics = (AUROC(), AP(), F1Max(), AUPRO(LIMIT))
    return {metric.label: metric.value(curve) for metric in metrics}


def apart(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Compute each by itself, in the usual way."""
    flat_truth, flat_score = truth.ravel(), score.ravel()
    recall, precision = _precision_recall(flat_truth, flat_score)
    ap = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    recall, precision = _precision_recall(flat_truth, flat_score)
    f1max = float(np.max(2 * recall * precision / np.maximum(recall + precision, 1e-300)))
    return {"auroc": _auroc(flat_truth, flat_score), "ap": ap, "f1max": f1max, "aupro": _aupro(truth, score)}


def _sorted(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of all scores, falling, and where each run of equal ones ends."""
    order = np.argsort(score)[::-1]
    ranked = score[order]
    return order, np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)


def _auroc(truth: np.ndarray, score: np.ndarray) -> float:
    order, ends = _sorted(score)
    tp = np.cumsum(truth[order])[ends]
    fp = 1 + ends - tp
    tpr, fpr = np.append(0, tp / tp[-1]), np.append(0, fp / fp[-1])
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1])) / 2)


def _precision_recall(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order, ends = _sorted(score)
    tp = np.cumsum(truth[order])[ends]
    return tp / tp[-1], tp / (1 + ends)


def _aupro(truth: np.ndarray, score: np.ndarray) -> float:
    """Give each pixel its weight in the rate and in the overlap, then sum both along the order of all pixels."""
    overlap, regions = np.zeros(truth.shape), 0
    for n, mask in enumerate(truth):
        labels, found = label(mask, structure=np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        overlap[n][mask] = 1.0 / areas[labels[mask]]
        regions += found
    order, ends = _sorted(score.ravel())
    y = np.append(0, np.cumsum(overlap.ravel()[order])[ends] / regions)
    x = np.append(0, np.cumsum(~truth.ravel()[order])[ends] / np.count_nonzero(~truth))
    within = np.searchsorted(x, LIMIT, side="right")
    x, y = np.append(x[:within], LIMIT), np.append(y[:within], np.interp(LIMIT, x, y))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / LIMIT)


def aupimo(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Keep the few highest scores of good images and look only at these, as a run does."""
    return {"aupimo": AUPIMO().value(Curve(truth, score))}


def aupimo_sorted(truth: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Sort every pixel of the good images; follow each defective image's recall along all of them."""
    low, high, values = 1e-5, 1e-4, []
    defective = truth.any(axis=(1, 2))
    normal = np.sort(score[~defective].ravel())[::-1]
    edges = np.log(np.clip(np.arange(normal.size + 1) / normal.size, low, high))
    for mask, own in zip(truth[defective], score[defective], strict=True):
        found = np.sort(own[mask])
        recall = 1.0 - np.searchsorted(found, normal, side="right") / found.size  # while so many normal ones pass
        values.append(float(np.sum(recall * np.diff(edges)) / np.log(high / low)))
    return {"aupimo": float(np.mean(values))}


def _peak() -> int:
    """Most bytes that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _measure(compute: Callable[[], Mapping[str, float]], repeats: int) -> tuple[Mapping[str, float], float, float]:
    """Return the values, the least CPU seconds of ``repeats`` tries, and the MB by which the peak rose."""
    before = _peak()
    values: Mapping[str, float] = {}
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        values = compute()
        seconds.append(time.process_time() - start)
    return values, min(seconds), (_peak() - before) / 1e6


def compare(images: int, size: int, repeats: int) -> None:
    """Print one comparison. The one that needs less memory goes first, since a peak never falls."""
    truth, score = draw(images, size)
    maps = (truth.nbytes + score.nbytes) / 1e6
    print(f"{images} maps of {size} x {size}, {100 * truth.mean():.1f} % defect, {maps:.0f} MB of maps and masks")
    pimo, quick, pimo_memory = _measure(lambda: aupimo(truth, score), repeats)
    ours, fast, fast_memory = _measure(lambda: together(truth, score), repeats)
    theirs, slow, slow_memory = _measure(lambda: apart(truth, score), repeats)
    fast_memory += pimo_memory  # a peak never falls: what came before is in it
    print(f"  counted once       {fast:8.3f} CPU s   {fast_memory:6.0f} MB above the maps")
    print(f"  sorted four times  {slow:8.3f} CPU s   {slow_memory + fast_memory:6.0f} MB above the maps")
    difference = max(abs(ours[name] - theirs[name]) for name in ours)
    print(f"  {slow / fast:.1f} times less CPU; greatest difference of a value {difference:.1e}")
    print("  " + ", ".join(f"{name} {value:.6f}" for name, value in ours.items()))
    every, long, _ = _measure(lambda: aupimo_sorted(truth, score), 1)
    print(
        f"  AUPIMO             {quick:8.3f} CPU s   {pimo_memory:6.0f} MB above the maps; every pixel: {long:.3f} CPU s"
    )
    print(f"  aupimo {pimo['aupimo']:.6f}, difference {abs(pimo['aupimo'] - every['aupimo']):.1e}", flush=True)


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also 100 maps of 1024 x 1024; takes minutes and 8 GB")
    large = parser.parse_args().large
    compare(60, 256, repeats=3)
    if large:
        compare(100, 1024, repeats=1)


if __name__ == "__main__":
    main()
