"""Ground truth and maps at the images' own sizes, which may differ: masks as they are, maps upsampled one at a time.

Masks are kept packed, 8 pixels in a byte. A map is computed from the map of the view whenever it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from iadbe.curves.curve import DefectRegion, PixelMap
from iadbe.curves.streamed import StreamedCurve
from iadbe.data.images import Images, native_size
from iadbe.evaluation.spilled_maps import Maps
from iadbe.files import image_io
from iadbe.types import Sample


class PackedMask(NamedTuple):
    """A mask (H, W) bool, 8 pixels in a byte."""

    shape: tuple[int, int]
    bits: np.ndarray  # uint8

    @classmethod
    def of(cls, mask: np.ndarray) -> PackedMask:
        """Pack a mask."""
        return cls((mask.shape[0], mask.shape[1]), np.packbits(mask))

    def unpacked(self) -> np.ndarray:
        """Return the mask, (H, W) bool."""
        return np.unpackbits(self.bits, count=self.shape[0] * self.shape[1]).view(bool).reshape(self.shape)


class NativeImage(NamedTuple):
    """What is known of one image at its own size."""

    size: tuple[int, int]  # height and width
    mask: PackedMask | None  # the defects that count; None: none
    region: PackedMask | None  # which pixels count; None: all


class NativeTruth:
    """The masks of test images at their own sizes."""

    def __init__(self, images: Images) -> None:
        """Read all masks. Where the place of a defect is not known, or does not count, the image is left out."""
        self.images = images
        self.known = np.ones(len(images), bool)
        self.kept: list[NativeImage] = []
        missing = ignored = 0
        for i, (sample, _) in enumerate(images.items):
            mask, region = self._mask(sample), self._region(sample)
            counts = mask is not None and (mask if region is None else mask & region).any()
            self.known[i] = counts or not sample.is_anomaly
            if self.known[i]:
                shown = None if mask is None or not counts else PackedMask.of(mask if region is None else mask & region)
                packed = None if region is None else PackedMask.of(region)
                self.kept.append(NativeImage(native_size(images.dataset, sample), shown, packed))
            elif mask is None or not mask.any():
                missing += 1
            else:
                ignored += 1
        self.notes = left_out_notes(sum(e.sample.is_anomaly for e in images.items), missing, ignored)

    @property
    def has_defects(self) -> bool:
        """Return whether any mask shows a defect."""
        return any(one.mask is not None for one in self.kept)

    def curve(
        self,
        maps: Maps,
        chosen: np.ndarray | None = None,
        parts: list[DefectRegion] | None = None,
        held_out: tuple[Maps, Images] | None = None,
    ) -> StreamedCurve:
        """Return the curve of maps of the view (N, h, w), at the images' own sizes.

        Args:
            maps: of all images
            chosen: (M,) bool, which of the known images to take; None: all
            parts: defects, by the position among the chosen images
            held_out: maps of held-out images, and the images
        """
        kept = self.kept if chosen is None else [one for one, taken in zip(self.kept, chosen, strict=True) if taken]
        shown = np.flatnonzero(self.known) if chosen is None else np.flatnonzero(self.known)[chosen]
        read = partial(self._read, kept, maps, shown)
        return StreamedCurve(len(kept), read, None if held_out is None else partial(_scores, *held_out), parts)

    def parts(self) -> list[DefectRegion]:
        """Return the defect regions of the known images, with the pixels that count."""
        found: list[DefectRegion] = []
        samples = [sample for (sample, _), known in zip(self.images.items, self.known, strict=True) if known]
        for place, (sample, one) in enumerate(zip(samples, self.kept, strict=True)):
            for defect in self.images.dataset.defects(sample) if one.mask is not None else ():
                mask = image_io.resized(defect.mask, *one.size)
                pixels = np.flatnonzero(mask if one.region is None else mask & one.region.unpacked())
                if pixels.size:
                    found.append(DefectRegion(place, pixels, defect.saturation * pixels.size))
        return found

    def _read(self, kept: list[NativeImage], maps: Maps, places: np.ndarray, i: int) -> PixelMap:
        one = kept[i]
        score = self.images.view.to_native(maps[places[i]], one.size)
        truth = np.zeros(one.size, bool) if one.mask is None else one.mask.unpacked()
        return PixelMap(score, truth, None if one.region is None else one.region.unpacked())

    def _mask(self, sample: Sample) -> np.ndarray | None:
        mask = self.images.dataset.mask(sample) if sample.is_anomaly else None
        return None if mask is None else image_io.resized(mask, *native_size(self.images.dataset, sample))

    def _region(self, sample: Sample) -> np.ndarray | None:
        return native_region(self.images, sample)


def native_region(images: Images, sample: Sample) -> np.ndarray | None:
    """Return which pixels of an image count, at its own size; None: all."""
    region = images.dataset.region(sample)
    return None if region is None else image_io.resized(region, *native_size(images.dataset, sample))


def left_out_notes(defects: int, missing: int, ignored: int) -> tuple[str, ...]:
    """Return notes on defective images that pixel metrics leave out."""
    notes = []
    if 0 < missing < defects:
        notes.append(f"{missing} of {defects} defective images have no mask; pixel metrics leave them out.")
    if ignored:
        notes.append(
            f"the defects of {ignored} of {defects} defective images lie where pixels do not count; pixel metrics "
            "leave them out."
        )
    return tuple(notes)


def _scores(maps: Maps, images: Images) -> Iterator[np.ndarray]:
    """Yield the scores of held-out images at their own sizes, of the pixels that count."""
    for map_, (sample, _) in zip(maps, images.items, strict=True):
        score = images.view.to_native(map_, native_size(images.dataset, sample))
        region = native_region(images, sample)
        yield score.ravel() if region is None else score[region]
