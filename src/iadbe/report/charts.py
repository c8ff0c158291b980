"""Geometry of the report's charts, in the units of their SVG view box; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

BINS = 26
LETTER = 6.6  # width of a label's letter
LINE = 14.0  # height of a label


class Tick(NamedTuple):
    """A tick of an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """A detector in the scatter chart, with the position of its label."""

    name: str
    time: float
    accuracy: float
    x: float
    y: float
    on_front: bool  # on the Pareto front
    label_x: float = 0.0
    label_y: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Scatter:
    """Accuracy over time; up and left is better. Time has a logarithmic axis."""

    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float
    points: tuple[Point, ...]
    front: str  # the path of the Pareto front
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def scatter(rows: Sequence[tuple[str, float, float]], width: float = 520, height: float = 340) -> Scatter | None:
    """Lay out (name, milliseconds, accuracy) rows; rows without finite values are left out."""
    rows = [r for r in rows if math.isfinite(r[1]) and math.isfinite(r[2]) and r[1] > 0]
    if not rows:
        return None
    left, top, right, bottom = 46.0, 14.0, width - 16.0, height - 42.0
    times, accuracies = [r[1] for r in rows], [r[2] for r in rows]
    x_low, x_high = math.log10(min(times)) - 0.12, math.log10(max(times)) + 0.12
    y_low, y_high = min(accuracies), max(accuracies)
    padding = max((y_high - y_low) * 0.14, 0.004)
    y_low, y_high = max(0.0, y_low - padding), min(1.0, y_high + padding)

    def place(time: float, accuracy: float) -> tuple[float, float]:
        x = left + (math.log10(time) - x_low) / (x_high - x_low) * (right - left)
        return round(x, 1), round(bottom - (accuracy - y_low) / (y_high - y_low) * (bottom - top), 1)

    best = pareto_front([(t, a) for _, t, a in rows])
    points = [Point(n, t, a, *place(t, a), i in best) for i, (n, t, a) in enumerate(rows)]
    return Scatter(
        width,
        height,
        left,
        top,
        right,
        bottom,
        _labelled(points, left, top, right, bottom),
        _steps([points[i] for i in best], top, right),
        tuple(Tick(place(t, y_low)[0], f"{t:g}") for t in _decades(x_low, x_high)),
        tuple(Tick(place(times[0], a)[1], _trimmed(a)) for a in round_steps(y_low, y_high, 5)),
    )


def pareto_front(pairs: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of (time, accuracy) pairs on the Pareto front, fastest first."""
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i][0], -pairs[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or pairs[i][1] > pairs[kept[-1]][1]:
            kept.append(i)
    return kept


def round_steps(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers within a range."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


class RankLabel(NamedTuple):
    """A detector on the rank axis, with the path from there to its name."""

    name: str
    rank: str
    path: str
    label_x: float
    label_y: float
    anchor: str


class Segment(NamedTuple):
    """A horizontal line."""

    left: float
    right: float
    y: float


@dataclass(frozen=True, slots=True)
class RankDiagram:
    """Demšar's critical-difference diagram: mean ranks on an axis, bars over groups without significant differences."""

    width: float
    height: float
    left: float
    right: float
    axis: float  # y
    ticks: tuple[Tick, ...]
    detectors: tuple[RankLabel, ...]
    bars: tuple[Segment, ...]
    ruler: Segment  # the critical difference
    critical: str


def rank_diagram(
    names: Sequence[str], mean: Sequence[float], groups: Sequence[tuple[int, int]], critical: float
) -> RankDiagram | None:
    """Lay out detectors by mean rank, best first; ``groups`` are (first, last) without significant differences.

    The better half have their names on the left, the others on the right, so that no two paths cross.
    """
    count = len(names)
    if count < 2:
        return None
    padding = round(1.12 * LETTER * (max(map(len, names)) + len(" (1.00)")) + 20, 1)
    width = 2 * padding + 300
    left, right, axis, top = padding, width - padding, 60.0, 22.0

    def at(rank: float) -> float:
        return round(left + (rank - 1) / (count - 1) * (right - left), 1)

    first = axis + 14 + 8 * len(groups)  # y of the uppermost name
    half = (count + 1) // 2
    placed = []
    for i, (name, rank) in enumerate(zip(names, mean, strict=True)):
        on_left = i < half
        y = first + 20 * (i if on_left else count - 1 - i)
        x = left - 10 if on_left else right + 10
        anchor = "end" if on_left else "start"
        path = f"M{at(rank)} {axis}V{y}H{x}"
        placed.append(RankLabel(name, f"{rank:.2f}", path, x + (-5 if on_left else 5), y + 4, anchor))
    bars = [Segment(at(mean[a]) - 4, at(mean[b]) + 4, axis + 8 + 8 * n) for n, (a, b) in enumerate(groups)]
    step = max(1, round((count - 1) / 10))
    ticks = [Tick(at(r), f"{r}") for r in range(1, count + 1, step)]
    ruler = Segment(left, min(at(1 + critical), width - 4), top)
    return RankDiagram(
        width,
        first + 20 * half + 24,
        left,
        right,
        axis,
        tuple(ticks),
        tuple(placed),
        tuple(bars),
        ruler,
        f"{critical:.2f}",
    )


class Bar(NamedTuple):
    """One bin: its left edge, width and the heights of good (up) and defective (down) images, in shares of 100."""

    x: float
    width: float
    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores of one detector in one category, good ones above the line, defective ones below."""

    bars: tuple[Bar, ...]
    threshold: float | None  # 0 to 100: threshold of the best F1, or of the model's calibration
    good: int
    bad: int
    low: float
    high: float
    calibrated: bool = False


def histogram(
    good: Sequence[float], bad: Sequence[float], threshold: float | None, calibrated: bool = False
) -> Histogram | None:
    """Count scores in equal bins; outliers are counted in the first and last bin."""
    both = np.concatenate([np.asarray(good, float), np.asarray(bad, float)])
    if not both.size:
        return None
    inner_low, inner_high = np.quantile(both, [0.05, 0.9])
    span = max(inner_high - inner_low, 1e-12)
    low, high = max(both.min(), inner_low - 0.5 * span), min(both.max(), inner_high + span)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(np.clip(np.asarray(v, float), low, high), edges)[0] for v in (good, bad)]
    shares = [c / max(c.max(initial=0), 1) * 100 for c in counts]
    width = 100 / BINS
    bars = [
        Bar(round(i * width, 2), round(width, 2), round(float(g), 1), round(float(b), 1))
        for i, (g, b) in enumerate(zip(*shares, strict=True))
        if g or b
    ]
    at = None if threshold is None else round(float(np.clip((threshold - low) / (high - low), 0, 1)) * 100, 2)
    return Histogram(tuple(bars), at, len(good), len(bad), float(low), float(high), calibrated)


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10 … in a range of powers of ten; only powers where there are many."""
    found = [m * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    found = [v for v in found if low <= math.log10(v) <= high]
    return found if len(found) <= 8 else [v for v in found if math.log10(v).is_integer()]


def _steps(points: Sequence[Point], top: float, right: float) -> str:
    """Return the Pareto front as a step line."""
    path = f"M{points[0].x} {points[0].y}"
    for before, point in pairwise(points):
        path += f"H{point.x}V{point.y}" if point.y < before.y else f"H{point.x}"
    return path + f"H{right}"


def _labelled(points: Sequence[Point], left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    """Place each point's label beside it without overlaps, best points first."""
    taken = [(p.x - 6, p.y - 6, p.x + 6, p.y + 6) for p in points]
    placed: dict[int, Point] = {}
    for i in sorted(range(len(points)), key=lambda i: (not points[i].on_front, -points[i].accuracy)):
        p, width = points[i], LETTER * len(points[i].name)
        beside = [(p.x + 10, p.y + 4, "start"), (p.x - 10, p.y + 4, "end")]
        choices = [
            *(reversed(beside) if p.on_front else beside),  # the front's line runs to the right of its points
            *((p.x + dx, p.y + dy, "middle") for dy in (-11, 20, -25, 34) for dx in (0, width / 3, -width / 3)),
        ]
        boxes = [_box(x, y, anchor, width) for x, y, anchor in choices]
        costs = [_cost(box, taken, (left, top, right, bottom)) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        x, y, anchor = choices[best]
        placed[i] = Point(p.name, p.time, p.accuracy, p.x, p.y, p.on_front, round(x, 1), round(y, 1), anchor)
    return tuple(placed[i] for i in range(len(points)))


Box = tuple[float, float, float, float]


def _box(x: float, y: float, anchor: str, width: float) -> Box:
    start = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * width
    return start, y - LINE + 3, start + width, y + 3


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """Return the area of a label that overlaps others or lies outside the frame."""
    overlap = sum(_shared(box, other) for other in taken)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return overlap + 4 * (area - _shared(box, frame))


def _shared(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


def _trimmed(value: float) -> str:
    text = f"{value:.4f}".rstrip("0")
    return text + "00"[: max(0, 2 - len(text.partition(".")[2]))]
