"""Verdicts by regions: which connected regions of an anomaly map are defects, and how many of them are too many.

A pixel is marked from the threshold on (``>=``); within a zone that has a threshold of its own, from that on. Marked
pixels that share a side or a corner are one region. Regions of fewer pixels than ``min_area`` do not count, and up to
``max_count`` regions are tolerated: a part is rejected if more of them count. All sizes are in pixels of the image
itself.

With a look threshold, which is lower, a part that is not rejected is to be looked at if more than ``max_count`` regions
count at that threshold. A zone's own threshold is the same for both.

Note: two regions may grow together at a lower threshold, and then count as one. So with ``max_count`` above 0 one large
region is tolerated; use ``min_area`` and no ``max_count`` where large regions matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from iadbe.errors import BadConfig
from iadbe.runtime import zones as zone_files
from iadbe.runtime.verdict import GOOD, LOOK, REJECT
from iadbe.runtime.zones import Zone, zone_numbers

LISTED = 100  # regions of an image that are listed, those with the highest peaks
FIRST = 4096  # pixels that are sorted at first, of the highest


class Region(NamedTuple):
    """A connected region of an anomaly map."""

    area: int  # pixels
    box: tuple[int, int, int, int]  # x and y of the upper left pixel, width, height
    peak: float  # the highest value of the map in it, raw
    zone: str = ""  # that its highest pixel is in; empty: none

    def card(self) -> dict[str, Any]:
        """Return the region as JSON has it."""
        return {"area": self.area, "box": list(self.box), "peak": self.peak, "zone": self.zone or None}


@dataclass(frozen=True, slots=True)
class RegionRule:
    """Which regions count, and how many are tolerated."""

    min_area: int = 1  # pixels from which a region counts
    max_count: int = 0  # regions that are tolerated
    zones: tuple[Zone, ...] = ()

    def __post_init__(self) -> None:
        if self.min_area < 1:
            raise BadConfig(f"min_area is a number of pixels, at least 1, not {self.min_area}.")
        if self.max_count < 0:
            raise BadConfig(f"max_count is a number of regions, at least 0, not {self.max_count}.")

    def __str__(self) -> str:
        area = f"regions of at least {self.min_area} pixels" if self.min_area > 1 else "regions"
        own = sum(zone.threshold is not None for zone in self.zones)
        zones = f" in {len(self.zones)} zones, {own} with a threshold of their own" if self.zones else ""
        return f"more than {self.max_count} {area}{zones}" if self.max_count else f"{area}{zones}"

    @property
    def zone_thresholds(self) -> tuple[float | None, ...]:
        """The zones' own thresholds."""
        return tuple(zone.threshold for zone in self.zones)


def read(card: Mapping[str, Any] | None) -> RegionRule | None:
    """Return the rule that a card holds. Raises ValueError or TypeError for what is none."""
    if card is None:
        return None
    area, count = card["min_area"], card["max_count"]
    if type(area) is not int or type(count) is not int or not 0 < area < 2**31 or not 0 <= count < 2**31:
        raise ValueError("min_area and max_count of a rule for regions are whole numbers")
    return RegionRule(area, count, zone_files.from_card(card["zones"]))


def regions_of(
    map_: np.ndarray, threshold: float, rule: RegionRule | None = None, zones: np.ndarray | None = None
) -> list[Region]:
    """Return the regions that count, those with the highest peaks first.

    Args:
        map_: (H, W) float32, raw, at the image's own size
        threshold: map value from which a pixel is marked, outside of zones with their own
        rule: which regions count; None: all
        zones: (H, W) numbers of the zones of the rule, 0 outside; None: those drawn for an image of this size
    """
    rule = rule or RegionRule()
    zones = zone_numbers(rule.zones, _size(map_)) if zones is None else zones
    marked = map_ >= threshold
    for number, own in enumerate(rule.zone_thresholds, 1):
        if own is not None and zones is not None:
            inside = zones == number
            marked[inside] = map_[inside] >= own
    label, pixels = components(marked)
    areas = np.bincount(label)
    kept = np.flatnonzero(areas >= rule.min_area)
    counts = areas[label] >= rule.min_area
    label, pixels = label[counts], pixels[counts]
    values = map_.ravel()[pixels]
    peaks = np.full(len(areas), -np.inf, np.float32)
    np.maximum.at(peaks, label, values)
    highest = np.zeros(len(areas), np.int64)
    is_highest = values == peaks[label]
    highest[label[is_highest][::-1]] = pixels[is_highest][::-1]  # the first of several
    y, x = np.divmod(pixels, map_.shape[1])
    edges = []
    for values_, extreme, start in (
        (x, np.minimum, map_.size), (y, np.minimum, map_.size), (x, np.maximum, -1), (y, np.maximum, -1)
    ):  # fmt: skip
        edge = np.full(len(areas), start, np.int64)
        extreme.at(edge, label, values_)
        edges.append(edge)
    names = ("", *(zone.name for zone in rule.zones))
    found = []
    for k in kept[np.argsort(-peaks[kept], kind="stable")]:
        left, top, right, bottom = (int(edge[k]) for edge in edges)
        zone = "" if zones is None else names[int(zones.ravel()[highest[k]])]
        box = (left, top, right - left + 1, bottom - top + 1)
        found.append(Region(int(areas[k]), box, float(peaks[k]), zone))
    return found


def verdict_by_regions(
    map_: np.ndarray,
    rule: RegionRule,
    threshold: float,
    look_threshold: float | None = None,
    zones: np.ndarray | None = None,
) -> tuple[str, list[Region]]:
    """Return good, look or reject, and the regions that count at the threshold that decided.

    Arguments are those of :func:`regions_of`; ``look_threshold`` is the map value from which pixels are marked that are
    to be looked at.
    """
    found = regions_of(map_, threshold, rule, zones)
    if len(found) > rule.max_count:
        return REJECT, found
    if look_threshold is not None:
        wider = regions_of(map_, look_threshold, rule, zones)
        if len(wider) > rule.max_count:
            return LOOK, wider
    return GOOD, found


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the 8-connected components of a mask (H, W) bool.

    Returns the label of each true pixel from 0 on, in the order of their first pixels, and the pixels' flat indices,
    both (P,) int64. Runs of a row are joined with those that they touch in the next one, by repeatedly taking the
    lowest label of neighbours (Shiloach and Vishkin, Journal of Algorithms 3, 1982).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    row, start = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[1]  # the first pixel after the run
    length, stride = end - start, width + 2
    below = (row + 1) * stride
    first = np.searchsorted(row * stride + end, below + start, side="left")  # of the runs that touch, in the next row
    last = np.searchsorted(row * stride + start, below + end, side="right")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(row)), count)
    lower = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
    root = np.arange(len(row))
    while True:
        lowest = np.minimum(root[upper], root[lower])
        joined = root.copy()
        for one in (root[upper], root[lower]):
            np.minimum.at(joined, one, lowest)
        while not np.array_equal(joined, joined[joined]):
            joined = joined[joined]
        if np.array_equal(joined, root):
            break
        root = joined
    label = np.unique(root, return_inverse=True)[1].reshape(-1)
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return np.repeat(label, length), np.repeat(row * width + start, length) + offset


def region_score(map_: np.ndarray, rule: RegionRule, zones: np.ndarray | None = None) -> float:
    """Return the highest threshold at which the rule rejects an image.

    At every threshold above it, the image passes. -inf where it passes at any threshold, inf where zones with their own
    threshold reject it whatever the threshold is. Arguments are those of :func:`regions_of`.

    Without tolerated regions, a region that counts at one threshold counts at all lower ones, as part of a larger one,
    so thresholds are bisected. Otherwise pixels are added from the highest on and joined by union-find, until more than
    ``max_count`` regions have ``min_area`` pixels.
    """
    zones = zone_numbers(rule.zones, _size(map_)) if zones is None else zones
    level = map_.astype(np.float32).ravel()  # a copy
    for number, own in enumerate(rule.zone_thresholds, 1):
        if own is not None and zones is not None:
            inside = zones.ravel() == number
            level[inside] = np.where(level[inside] >= own, np.inf, -np.inf)
    if rule.max_count == 0:
        return _by_bisection(level.reshape(map_.shape), rule.min_area)
    return _by_union_find(level, map_.shape[1], rule)


def _by_bisection(level: np.ndarray, min_area: int) -> float:
    """Return the highest level of (H, W) from which on a region has ``min_area`` pixels; -inf: there is none."""
    count = min(level.size, max(FIRST, 4 * min_area))
    while True:
        lowest = -np.partition(-level, count - 1, axis=None)[count - 1]
        label, pixels = components((level >= lowest) & (level > -np.inf))
        is_large = np.bincount(label)[label] >= min_area
        if is_large.any():
            break
        if count == level.size:
            return -np.inf
        count = min(level.size, 4 * count)
    pixels = pixels[is_large]  # a region at a higher level is a part of one of these
    y, x = np.divmod(pixels, level.shape[1])
    values = level.ravel()[pixels]
    inside = np.full((np.ptp(y) + 1, np.ptp(x) + 1), -np.inf, np.float32)
    inside[y - y.min(), x - x.min()] = values
    levels = np.unique(values)
    low, high = 0, len(levels)  # at the first there is a region that counts, at the last there is none
    while high - low > 1:
        middle = (low + high) // 2
        marked = inside >= levels[middle]
        is_enough = marked.sum() >= min_area and np.bincount(components(marked)[0]).max() >= min_area
        low, high = (middle, high) if is_enough else (low, middle)
    return float(levels[low])


def _by_union_find(level: np.ndarray, width: int, rule: RegionRule) -> float:
    """Return the highest level of the pixels (H * W,) at which too many regions count; -inf: there is none."""
    count = min(level.size, max(FIRST, 4 * rule.min_area * (rule.max_count + 1)))
    while True:
        highest = np.argpartition(-level, count - 1)[:count] if count < level.size else np.arange(level.size)
        order = highest[np.argsort(-level[highest], kind="stable")]
        found = _first_violation(order, level[order], width, rule, complete=count == level.size)
        if found is not None:
            return found
        count = min(level.size, 4 * count)


def _first_violation(
    order: np.ndarray, levels: np.ndarray, width: int, rule: RegionRule, *, complete: bool
) -> float | None:
    """Return the level at which too many regions count; -inf: at none; None: more pixels must be looked at."""
    parent: dict[int, int] = {}
    area: dict[int, int] = {}
    count = 0

    def root_of(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = parent[parent[pixel]]
            pixel = parent[pixel]
        return pixel

    for place, pixel in enumerate(order.tolist()):
        level = float(levels[place])
        if level == -np.inf:
            return -np.inf
        parent[pixel], area[pixel] = pixel, 1
        root = pixel
        count += rule.min_area <= 1
        x = pixel % width
        sides = (-1, 0, 1) if 0 < x < width - 1 else [d for d in (-1, 0, 1) if 0 <= x + d < width]
        for step in (d + r for r in (-width, 0, width) for d in sides):
            if step and pixel + step in parent:
                other = root_of(pixel + step)
                if other != root:
                    small, large = sorted((root, other), key=lambda one: area[one])
                    before = (area[small] >= rule.min_area) + (area[large] >= rule.min_area)
                    parent[small] = large
                    area[large] += area[small]
                    count += (area[large] >= rule.min_area) - before
                    root = large
        is_last = place + 1 == len(order)
        all_are_in = complete if is_last else bool(levels[place + 1] < level)  # of this level
        if all_are_in and count > rule.max_count:
            return level
    return -np.inf if complete else None


def _size(map_: np.ndarray) -> tuple[int, int]:
    return map_.shape[0], map_.shape[1]
