"""Masks of test images beside their maps, for pixel metrics: in the view, or at the images' own sizes.

In the view, masks and maps are arrays where the maps are in memory; where they are spilled, masks are packed, and one
map at a time is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from iadbe.curves.curve import EIGHT_NEIGHBOURS, Curve, DefectRegion, PixelMap
from iadbe.curves.streamed import StreamedCurve
from iadbe.data.images import Images, View, mask_coverage, read_region_view
from iadbe.evaluation.native import NativeTruth, PackedMask, left_out_notes
from iadbe.evaluation.spilled_maps import Maps, SpilledMaps
from iadbe.metric import NEAREST

LOST_SHARE = 0.05  # of the defect regions; from here on a note says how many have no pixel in the view
TOUCHED = "rows with the mask rule touched, as pixel_auroc.touched, count every pixel that a defect touches"
HeldOut = tuple[Maps, Images | None]  # maps of held-out images, and the images; None: all their pixels count


class GroundTruth(NamedTuple):
    """The masks of test images in the view, under one mask rule."""

    masks: np.ndarray  # (M, H, W) bool, of the images that are known
    known: np.ndarray  # (N,) bool: the image is good, or has a mask with a defect pixel in the view
    notes: tuple[str, ...] = ()
    region: np.ndarray | None = None  # (M, H, W) bool: which pixels count; None: all


class ViewPixels:
    """Masks and maps in the view, under one mask rule."""

    def __init__(self, maps: np.ndarray, images: Images, held_out: HeldOut | None, rule: str) -> None:
        self.images, self.truth = images, ground_truth(images, rule)
        self.known, self.notes = self.truth.known, self.truth.notes
        self.maps = maps if self.known.all() else maps[self.known]
        self.held_out = None if held_out is None else np.asarray(held_out[0])
        if held_out is not None and held_out[1] is not None and (region := held_out[1].regions()) is not None:
            self.held_out = np.asarray(held_out[0])[region]

    @property
    def has_defects(self) -> bool:
        """Return whether any mask shows a defect."""
        return bool(self.truth.masks.any())

    def parts(self) -> list[DefectRegion]:
        """Return the defect regions of the known images."""
        return defect_regions(self.images, self.known)

    def curve(self, chosen: np.ndarray | None, parts: list[DefectRegion] | None) -> Curve:
        """Return the curve of the known images, or of those of them that are ``chosen``, (M,) bool."""
        masks, _, _, region = self.truth
        if chosen is None:
            return Curve(masks, self.maps, self.held_out, parts, region)
        return Curve(masks[chosen], self.maps[chosen], self.held_out, parts, None if region is None else region[chosen])


class StreamedViewPixels:
    """Masks and maps in the view, under one mask rule, of which one at a time is in memory."""

    def __init__(self, maps: Maps, images: Images, held_out: HeldOut | None, rule: str) -> None:
        self.maps, self.images, self.held_out = maps, images, held_out
        self.masks, self.known, self.notes = _seen(images, rule, PackedMask.of)
        self.places = np.flatnonzero(self.known)

    @property
    def has_defects(self) -> bool:
        """Return whether any mask shows a defect."""
        return any(mask.bits.any() for mask in self.masks)

    def parts(self) -> list[DefectRegion]:
        """Return the defect regions of the known images."""
        return defect_regions(self.images, self.known)

    def curve(self, chosen: np.ndarray | None, parts: list[DefectRegion] | None) -> Curve:
        """Return the curve of the known images, or of those of them that are ``chosen``, (M,) bool."""
        numbers = np.arange(len(self.masks)) if chosen is None else np.flatnonzero(chosen)
        held_out = None if self.held_out is None else partial(_counted, *self.held_out)
        return StreamedCurve(len(numbers), lambda i: self._read(int(numbers[i])), held_out, parts)

    def _read(self, number: int) -> PixelMap:
        place = int(self.places[number])
        region = _region(self.images, place)
        return PixelMap(self.maps[place], self.masks[number].unpacked(), region)


class NativePixels:
    """Masks and maps at the images' own sizes."""

    def __init__(self, maps: Maps, images: Images, held_out: HeldOut | None) -> None:
        self.images, self.maps, self.held_out = images, maps, held_out
        self.truth = NativeTruth(images)
        self.known, self.notes = self.truth.known, self.truth.notes

    @property
    def has_defects(self) -> bool:
        """Return whether any mask shows a defect."""
        return self.truth.has_defects

    def parts(self) -> list[DefectRegion]:
        """Return the defect regions of the known images."""
        return self.truth.parts()

    def curve(self, chosen: np.ndarray | None, parts: list[DefectRegion] | None) -> Curve:
        """Return the curve of the known images, or of those of them that are ``chosen``, (M,) bool."""
        maps, images = self.held_out or (None, None)
        apart = None if maps is None or images is None else (maps, images)
        return self.truth.curve(self.maps, chosen, parts, apart)


PixelTruth = ViewPixels | StreamedViewPixels | NativePixels


def pixels_in_view(maps: Maps, images: Images, held_out: HeldOut | None, rule: str) -> ViewPixels | StreamedViewPixels:
    """Return masks and maps in the view, in memory if all the maps are."""
    if isinstance(maps, SpilledMaps) or (held_out is not None and isinstance(held_out[0], SpilledMaps)):
        return StreamedViewPixels(maps, images, held_out, rule)
    return ViewPixels(maps, images, held_out, rule)


def ground_truth(images: Images, rule: str = NEAREST) -> GroundTruth:
    """Return the masks of the images in the view. ``rule`` is one of :data:`iadbe.metric.MASK_RULES`.

    The place of a defect is unknown without a mask, with an empty one, and where no defect pixel is left in the view.
    Such an image is left out of the pixel metrics, with a note, and so is one whose defects lie where pixels do not
    count.
    """
    masks, known, notes = _seen(images, rule, lambda mask: mask)
    regions = images.regions()
    stacked = np.stack(masks) if masks else np.zeros((0, *images.view.shape), bool)
    return GroundTruth(stacked, known, notes, None if regions is None else regions[known])


def _seen(
    images: Images, rule: str, packed: Callable[[np.ndarray], Any]
) -> tuple[list[Any], np.ndarray, tuple[str, ...]]:
    """Return the masks of the known images, each ``packed``; which images are known, (N,) bool; and the notes."""
    masks, known = [], np.ones(len(images), bool)
    missing = vanished = ignored = lost = total = 0
    for i, (sample, _) in enumerate(images.items):
        mask, region = images.dataset.mask(sample) if sample.is_anomaly else None, _region(images, i)
        seen = np.zeros(images.view.shape, bool) if mask is None else mask_in_view(mask, images, rule)
        counts = seen if region is None else seen & region
        known[i] = counts.any() or not sample.is_anomaly
        if known[i]:
            masks.append(packed(counts))
        elif mask is None or not mask.any():
            missing += 1
        elif seen.any():
            ignored += 1
        else:
            vanished += 1
        if mask is not None and known[i] and seen.shape != mask.shape:
            gone, of = _lost_regions(mask, images) if rule == NEAREST else (0, 0)
            lost, total = lost + gone, total + of
    defects = sum(e.sample.is_anomaly for e in images.items)
    notes = [*left_out_notes(defects, missing, ignored)]
    if vanished:
        notes.append(_vanished(vanished, defects, images.view, rule))
    if lost > LOST_SHARE * total:
        notes.append(f"{lost} of {total} defect regions have no pixel in the view of {images.view}; {TOUCHED}.")
    return masks, known, tuple(notes)


def defect_regions(images: Images, known: np.ndarray) -> list[DefectRegion]:
    """Return the defect regions of the images with a known mask, in the view; empty ones are left out."""
    found: list[DefectRegion] = []
    for place, i in enumerate(np.flatnonzero(known)):
        sample, region = images.items[i].sample, _region(images, int(i))
        for defect in images.dataset.defects(sample) if sample.is_anomaly else ():
            seen = images.view(defect.mask)
            pixels = np.flatnonzero(seen if region is None else seen & region)
            if pixels.size:
                found.append(DefectRegion(place, pixels, defect.saturation * pixels.size))
    return found


def mask_in_view(mask: np.ndarray, images: Images, rule: str) -> np.ndarray:
    """Return a mask (H, W) bool in the view under a rule; all but ``nearest`` resize it as a grey image."""
    if rule == NEAREST:
        return images.view(mask)
    grey = mask_coverage(mask, images.view)
    return {"over_half": grey >= 128, "touched": grey > 0, "whole": grey == 255}[rule]


def _region(images: Images, i: int) -> np.ndarray | None:
    return read_region_view(images.dataset, images.items[i].sample, images.view)


def _counted(maps: Maps, images: Images | None) -> Iterator[np.ndarray]:
    """Yield the scores of the pixels of each map that count."""
    for i, map_ in enumerate(maps):
        region = None if images is None else _region(images, i)
        yield map_.ravel() if region is None else map_[region]


def _vanished(count: int, defects: int, view: View, rule: str) -> str:
    what = f"the masks of {count} of {defects} defective images have no defect pixel in the view of {view}"
    instead = f"; {TOUCHED}" if rule == NEAREST else ""
    return f"{what} (mask rule {rule}); pixel metrics leave them out{instead}."


def _lost_regions(mask: np.ndarray, images: Images) -> tuple[int, int]:
    """Return (regions of a mask without a pixel in the view, all its regions), under the rule ``nearest``."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    numbers = np.zeros(mask.shape, np.float32)  # which the view resamples by nearest neighbour
    from scipy.ndimage import label  # here, because predicting measures nothing

    numbers[box], count = label(mask[box], structure=EIGHT_NEIGHBOURS)
    return count - np.count_nonzero(np.unique(np.nan_to_num(images.view(numbers)))), count  # nan is padding
