"""The problems of a dataset that its check found: what makes results wrong, and what is worth knowing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import number_of
from iadbe.files.annotation_files import Annotations
from iadbe.types import UNLABELLED_NOTE, Sample

VIEW = 256  # pixels of the view in which detectors see images, unless a protocol says otherwise
SHRINK = 10  # times that a side is reduced to fit the view, from which on small defects are lost
LONG = 3  # ratio of the sides from which on a square view distorts an image much
MOST = 0.5  # share of an image that a defect seldom covers
FEW = 10  # training images; below, many detectors cannot estimate their statistics
DARK = 32  # grey level, of 255, that a deep image should reach
ASPECT = 0.02  # largest relative difference of the aspect ratios of an image and its mask
LEAKS = {  # why an image must not be in two splits
    frozenset(("train", "test")): "a detector would be tested on a training image",
    frozenset(("train", "val")): "a threshold would be chosen on a training image",
    frozenset(("val", "test")): "a threshold would be tested on an image that it was chosen on",
}
SHOWN = 5  # contradictions that are listed
CAMERA_FILES = (  # endings of images that are not read
    *(".heic", ".heif", ".tga", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".exr", ".hdr", ".psd", ".pcx", ".jxl"),
    *(".dcm", ".czi", ".nd2", ".svs", ".svg"),
)
FLATTERED = {  # what near-copies in two splits do to the results
    frozenset(("train", "test")): "image metrics and the false positive rate look better than they are",
    frozenset(("train", "val")): "thresholds are chosen too low, so more normal images are rejected than promised",
    frozenset(("val", "test")): "the promised share of rejected normal images looks surer than it is",
    frozenset(("test",)): "confidence intervals are too narrow, for they count these images as independent",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem. An error makes results wrong or runs fail; a warning does not."""

    grade: Literal["error", "warning"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Record:
    """The facts of one sample."""

    sample: Sample
    error: str = ""
    size: tuple[int, int] = (0, 0)
    kind: str = "RGB"
    deep: bool = False  # more than 8 bits per sample
    pixels: str = ""  # digest
    brightest: int = 255
    plain: bool = False  # all pixels are equal
    mask: tuple[int, int] | None = None  # its size
    marked: float = 0.0  # share of the mask's pixels
    in_view: bool = False  # whether a pixel of the mask is left in the view
    mask_reading: str = ""  # how the mask was read
    mask_error: str = ""
    counted: float | None = None  # share of the pixels that count; None: all, for there is no region
    outside: bool = False  # the mask marks a defect, and all of it lies outside of the region
    signature: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float16))  # for finding near-copies


def problems(
    dataset: Dataset,
    seen: Sequence[Record],
    duplicates: Sequence[Sequence[Record]],
    copies: Sequence[tuple[Record, Record]],
    files: Sequence[Annotations] = (),
) -> Iterator[Problem]:
    """Yield the errors, then the warnings."""
    for sentence in dict.fromkeys(s.error or s.mask_error for s in seen if s.error or s.mask_error):
        yield Problem("error", sentence)
    wrong = [problem for group in duplicates for problem in _contradictions(group)]
    yield from wrong if len(wrong) <= SHOWN else wrong[: SHOWN - 1]
    if len(wrong) > SHOWN:
        yield Problem("error", f"{len(wrong) - SHOWN + 1} more images are the same in the same way.")
    for category in dataset.categories:
        mine = [s for s in seen if s.sample.category == category]
        yield from _split_sizes(category, mine)
        yield from _published(dataset, category, mine)
        if "mask" in dataset.gives:
            yield from _mask_problems(category, [s for s in mine if not s.error])
        yield from _region_problems(category, mine)
    same = [g for g in duplicates if not list(_contradictions(g))]
    if same:
        example = f"for example {same[0][0].sample.id} and {same[0][1].sample.id}"
        what = "1 image occurs" if len(same) == 1 else f"{len(same)} images occur"
        yield Problem("warning", f"{what} more than once in one split, {example}.")
    yield from _copied(copies)
    yield from _shape(seen)
    dark = [s for s in seen if s.deep and s.brightest < DARK]
    if dark:
        what = "nearly black in the range of the normal images: do they have another bit depth?"
        yield Problem("warning", f"{_example(dark, 'deep images', 'are')} {what}")
    for kind in files:
        yield Problem("warning", kind.sentence)
    plain = [s for s in seen if s.plain]
    if plain:
        yield Problem("warning", f"{_example(plain, 'images', 'have')} one colour only.")


def _contradictions(group: Sequence[Record]) -> Iterator[Problem]:
    """Yield the problem of equal images in two splits, or with contradictory labels."""
    first = group[0].sample
    for s in group[1:]:
        if s.sample.split != first.split:
            sides = f"{first.id} ({first.split}) and {s.sample.id} ({s.sample.split})"
            yield Problem("error", f"{sides} are the same image: {LEAKS[frozenset((s.sample.split, first.split))]}.")
            return
        if s.sample.is_anomaly != first.is_anomaly:
            sides = f"{first.id} ({first.defect}) and {s.sample.id} ({s.sample.defect})"
            yield Problem("error", f"{sides} are the same image: one of the two labels is wrong.")
            return


def unread_images(endings: Mapping[str, int]) -> Iterator[Problem]:
    """Yield a warning of image files of other formats, given ending -> number of files that are no images here."""
    found = {ending: count for ending, count in endings.items() if ending in CAMERA_FILES}
    if found:
        count, verb = sum(found.values()), "is" if sum(found.values()) == 1 else "are"
        files = f"{number_of(count, 'file')} ({', '.join(found)})"
        yield Problem("warning", f"{files} {verb} not read: save images as PNG, TIFF or JPEG.")


def _split_sizes(category: str, mine: Sequence[Record]) -> Iterator[Problem]:
    train = sum(s.sample.split == "train" and not s.sample.is_anomaly for s in mine)
    test = Counter(s.sample.is_anomaly for s in mine if s.sample.split == "test")
    if not train:
        yield Problem("error", f"{category} has no good images to train on.")
    elif train < FEW:
        images = number_of(train, "good image")
        yield Problem("warning", f"{category} has {images} to train on: many detectors need more.")
    if any(not s.sample.is_labelled for s in mine):
        yield Problem("warning", f"{category}: {UNLABELLED_NOTE}")
        return
    for anomaly, what in ((True, "defects"), (False, "good images")):
        if not test[anomaly]:
            yield Problem("warning", f"{category} has no {what} to test: image metrics are not defined.")


def _published(dataset: Dataset, category: str, mine: Sequence[Record]) -> Iterator[Problem]:
    """Compare with the class attribute ``counts``: (train, good, defective), or (good, defective) without a split."""
    expected = getattr(dataset, "counts", {}).get(category)
    if not expected:
        return
    train = sum(s.sample.split == "train" for s in mine)
    bad = sum(s.sample.is_anomaly for s in mine)
    found = (train, len(mine) - train - bad, bad)
    if len(expected) == 3 and found != tuple(expected):
        words = "{} to train, {} good and {} defective to test"
        if any(s.sample.split == "val" for s in mine):
            words = "{} to train, {} good to validate and test and {} defective"
        difference = f"{words.format(*found)}, but published are {words.format(*expected)}"
        yield Problem("warning", f"{category} has {difference}: it is incomplete, or not the published data.")
    if len(expected) == 2 and len(mine) != sum(expected):
        yield Problem("warning", f"{category} has {len(mine)} images, but {sum(expected)} are published.")


def _mask_problems(category: str, mine: Sequence[Record]) -> Iterator[Problem]:
    defects = [s for s in mine if s.sample.is_anomaly and not s.mask_error]
    missing = [s for s in defects if s.mask is None]
    if missing and len(missing) == len(defects):
        yield Problem("warning", f"no defect of {category} has a mask: image metrics only.")
    elif missing:
        number = _example(missing, f"of {len(defects)} defects of {category}", "have")
        yield Problem("warning", f"{number} no mask: left out of pixel metrics.")
    if empty := [s for s in defects if s.mask and not s.marked]:
        yield Problem(
            "warning", f"{_example(empty, f'defects of {category}', 'have')} an empty mask: left out of pixel metrics."
        )
    if vanished := [s for s in defects if s.marked and not s.in_view]:
        yield Problem(
            "warning",
            f"{_example(vanished, f'defects of {category}', 'have')} a mask that vanishes in the view of "
            f"{VIEW}x{VIEW}: left out of pixel metrics. Take a larger view, --protocol uniform@512, or tiles.",
        )
    large = [s for s in defects if s.marked > MOST]
    if 2 * len(large) > sum(s.mask is not None for s in defects):
        yield Problem(
            "warning",
            f"{_example(large, f'masks of {category}', 'mark')} more than half of the image: is the "
            "defect dark on white? Invert such masks, or pixel metrics are those of the background.",
        )
    if false := [s for s in mine if not s.sample.is_anomaly and s.marked]:
        yield Problem("error", f"{_example(false, f'good images of {category}', 'have')} a mask that marks a defect.")
    other = [s for s in mine if s.mask and abs(s.mask[0] * s.size[1] / (s.mask[1] * s.size[0]) - 1) > ASPECT]
    if other:
        yield Problem("warning", f"{_example(other, f'masks of {category}', 'have')} other proportions than the image.")


def _region_problems(category: str, mine: Sequence[Record]) -> Iterator[Problem]:
    if empty := [s for s in mine if s.counted == 0]:
        yield Problem("error", f"{_example(empty, f'images of {category}', 'have')} a region in which no pixel counts.")
    if outside := [s for s in mine if s.outside]:
        yield Problem(
            "warning",
            f"{_example(outside, f'defects of {category}', 'lie')} wholly outside of the region: "
            "a detector cannot find that, and yet the image counts as defective in image metrics.",
        )


def _copied(copies: Sequence[tuple[Record, Record]]) -> Iterator[Problem]:
    """Yield one warning for each pair of splits."""
    by_splits: dict[frozenset[str], list[tuple[Record, Record]]] = {}
    for pair in copies:
        by_splits.setdefault(frozenset(s.sample.split for s in pair), []).append(pair)
    for splits, pairs in by_splits.items():
        first, second = pairs[0]
        where = "another test image" if len(splits) == 1 else f"a {first.sample.split} image"
        some = len({s.sample.id for _, s in pairs})
        are = "image is" if some == 1 else "images are"
        yield Problem(
            "warning",
            f"{some} {second.sample.split} {are} nearly the same as {where} (for example {second.sample.id} and "
            f"{first.sample.id}): {FLATTERED[splits]}. Keep images of one part together, with --data.group.",
        )


def _shape(seen: Sequence[Record]) -> Iterator[Problem]:
    """Yield warnings on images that a square view shrinks or distorts much."""
    read = [s for s in seen if not s.error]
    large = [s for s in read if max(s.size) >= SHRINK * VIEW]
    if large:
        most = max(max(s.size) for s in large)
        yield Problem(
            "warning",
            f"{_example(large, 'images', 'are')} up to {most} pixels long, which the view of {VIEW} shrinks "
            f"{most / VIEW:.0f} times and small defects vanish. Cut them into tiles, or take --protocol uniform@1024.",
        )
    long = [s for s in read if max(s.size) >= LONG * min(s.size)]
    if long:
        ratio = max(max(s.size) / min(s.size) for s in long)
        yield Problem(
            "warning",
            f"{_example(long, 'images', 'are')} up to {ratio:.1f} times as long as wide. The square view "
            "distorts them: cut them into tiles.",
        )


def _example(records: Sequence[Record], what: str, verb: str = "") -> str:
    """Return the number of records, the first of them, and a verb: nouns and verb are given in the plural."""
    if len(records) == 1:
        what = re.sub(r"\b(image|defect|mask)s\b", r"\1", what, count=1) if not what.startswith("of ") else what
        verb = {"have": "has", "are": "is"}.get(verb, f"{verb}s" if verb else "")
    return f"{len(records)} {what} (for example {records[0].sample.id}) {verb}".rstrip()
