"""Checks every image and mask of a dataset: counts, sizes, masks, duplicates, and problems.

The check goes on after a problem. Each file that cannot be read is named with the reason.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import image_io, layout
from iadbe.types import Sample

FEW = 10  # training images; below, many detectors cannot estimate their statistics
DARK = 32  # grey level, of 255, that a 16-bit image should reach: 12-bit data in 16 bits ends at 16
ASPECT = 0.02  # largest relative difference of the aspect ratios of an image and its mask
LEAKS = {  # why an image must not be in two splits
    frozenset(("train", "test")): "a detector would be tested on a training image",
    frozenset(("train", "val")): "a threshold would be chosen on a training image",
    frozenset(("val", "test")): "a threshold would be tested on an image that it was chosen on",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem. An error makes results wrong or runs fail; a warning does not."""

    grade: Literal["error", "warning"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check; :meth:`as_dict` returns it as JSON data."""

    title: str
    root: str  # empty where the dataset draws its images
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]  # category -> split -> "good" or kind of defect -> images
    sizes: Mapping[str, int]  # "HEIGHTxWIDTH" -> images, the most frequent first
    converted: Mapping[str, int]  # what had to be converted to RGB -> images
    masks: Mapping[str, int]  # of defects: present, missing, empty, other_size (than the image's)
    defect_share: Mapping[str, float]  # category -> mean share of a defective image's pixels, where masks tell
    duplicates: tuple[tuple[str, ...], ...]  # samples with equal pixels
    unused: Mapping[str, int]  # folder below the root -> images in it that the dataset does not contain
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(p.grade != "error" for p in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries, lists, strings and numbers."""
        return {**asdict(self), "duplicates": [list(d) for d in self.duplicates], "ok": self.ok}

    def lines(self) -> list[str]:
        """Return the report as text, one fact per line, problems last."""
        facts = [
            f"{self.title} in {self.root}" if self.root else f"{self.title}, rendered, not read from files",
            *(_count_text(c, splits) for c, splits in self.counts.items()),
        ]
        facts += [_size_text(self.sizes), f"converted to RGB: {_list_text(self.converted)}" if self.converted else ""]
        if any(self.masks.values()):
            facts.append(
                f"masks of defects: {_list_text({k.replace('_', ' '): n for k, n in self.masks.items() if n})}"
            )
        for category, share in self.defect_share.items():
            facts.append(f"{category}: a defect covers {100 * share:.2g} % of its image on average")
        if self.unused:
            facts.append(f"images in this folder that are not part of the dataset: {_list_text(self.unused)}")
        facts += [f"{p.grade}: {p.sentence}" for p in self.problems]
        grades = Counter(p.grade for p in self.problems)
        facts.append(f"{grades['error']} errors, {grades['warning']} warnings")
        return [fact for fact in facts if fact]


@dataclass(frozen=True, slots=True)
class _Record:
    """The facts of one sample."""

    sample: Sample
    error: str = ""
    size: tuple[int, int] = (0, 0)
    kind: str = "RGB"
    pixels: str = ""  # digest
    brightest: int = 255
    plain: bool = False  # all pixels are equal
    mask: tuple[int, int] | None = None  # its size
    marked: float = 0.0  # share of the mask's pixels
    mask_error: str = ""


def check(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Report:
    """Check every image and mask of a dataset; ``progress`` is called with (done, total)."""
    samples = dataset.samples()
    seen: list[_Record] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
        for record in readers.map(partial(_inspect, dataset), samples):
            seen.append(record)
            if progress is not None:
                progress(len(seen), len(samples))
    read = [s for s in seen if not s.error]
    duplicates = _duplicates(read)
    shares: dict[str, list[float]] = defaultdict(list)
    for s in read:
        if s.sample.is_anomaly and s.mask:
            shares[s.sample.category].append(s.marked)
    sizes = Counter(f"{s.size[0]}x{s.size[1]}" for s in read)
    return Report(
        title=str(dataset.title or type(dataset).__name__),
        root=str(_root(dataset, samples) or ""),
        counts=_counts(dataset, samples),
        sizes=dict(sizes.most_common()),
        converted=dict(Counter(s.kind for s in read if s.kind != "RGB").most_common()),
        masks=_masks(dataset, read),
        defect_share={c: float(np.mean(v)) for c, v in sorted(shares.items())},
        duplicates=tuple(tuple(s.sample.id for s in group) for group in duplicates),
        unused=_unused(dataset, samples),
        problems=tuple(_problems(dataset, seen, duplicates)),
    )


def _inspect(dataset: Dataset, sample: Sample) -> _Record:
    file = getattr(dataset, "root", None)
    try:
        pixels = dataset.image(sample)
        facts = image_io.read_header(file / sample.image) if file and (file / sample.image).is_file() else None
    except (BadData, OSError) as error:
        return _Record(sample, error=str(error))
    mask, problem = None, ""
    try:
        mask = dataset.mask(sample)
    except (BadData, OSError) as error:
        problem = str(error)
    low, high = int(pixels.min()), int(pixels.max())
    return _Record(
        sample,
        size=(pixels.shape[0], pixels.shape[1]),
        kind=facts.kind if facts else "RGB",
        pixels=f"{pixels.shape} {hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()}",
        brightest=high,
        plain=low == high,
        mask=None if mask is None else (mask.shape[0], mask.shape[1]),
        marked=0.0 if mask is None else float(mask.mean()),
        mask_error=problem,
    )


def _root(dataset: Dataset, samples: Sequence[Sample]) -> Path | None:
    """Return the folder of a dataset that reads files, None for one that draws its images."""
    root: Path | None = getattr(dataset, "root", None)
    return root if root and any((root / s.image).is_file() for s in samples) else None


def _counts(dataset: Dataset, samples: Iterable[Sample]) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {c: {} for c in dataset.categories}
    for s in samples:
        kinds = found.setdefault(s.category, {}).setdefault(s.split, {})
        kinds[s.defect] = kinds.get(s.defect, 0) + 1
    order = ("train", "val", "test")
    return {c: dict(sorted(splits.items(), key=lambda s: order.index(s[0]))) for c, splits in found.items()}


def _masks(dataset: Dataset, read: Iterable[_Record]) -> dict[str, int]:
    defects = [s for s in read if s.sample.is_anomaly]
    if "mask" not in dataset.gives:
        return {"present": 0, "missing": 0, "empty": 0, "other_size": 0}
    there = [s for s in defects if s.mask]
    empty = sum(not s.marked for s in there)
    other = sum(s.mask != s.size for s in there)
    return {"present": len(there), "missing": len(defects) - len(there), "empty": empty, "other_size": other}


def _duplicates(read: Iterable[_Record]) -> list[list[_Record]]:
    groups: dict[str, list[_Record]] = defaultdict(list)
    for s in read:
        groups[s.pixels].append(s)
    return [group for group in groups.values() if len(group) > 1]


def _unused(dataset: Dataset, samples: Sequence[Sample]) -> dict[str, int]:
    root = _root(dataset, samples)
    if root is None:
        return {}
    used = {path for s in samples for path in (s.image, s.mask, s.depth) if path}
    left = [p for p in layout.images_below(root) if p not in used and p.rpartition("/")[0] not in used]
    return dict(Counter(p.rpartition("/")[0] or "." for p in left))


def _problems(dataset: Dataset, seen: Sequence[_Record], duplicates: Sequence[Sequence[_Record]]) -> Iterator[Problem]:
    """Yield the errors, then the warnings."""
    for s in seen:
        if s.error or s.mask_error:
            yield Problem("error", s.error or s.mask_error)
    for group in duplicates:
        yield from _contradictions(group)
    for category in dataset.categories:
        mine = [s for s in seen if s.sample.category == category]
        yield from _split_sizes(category, mine)
        yield from _published(dataset, category, mine)
        if "mask" in dataset.gives:
            yield from _mask_problems(category, [s for s in mine if not s.error])
    same = [g for g in duplicates if not list(_contradictions(g))]
    if same:
        example = f"for example {same[0][0].sample.id} and {same[0][1].sample.id}"
        yield Problem("warning", f"{len(same)} images occur more than once in one split, {example}.")
    dark = [s for s in seen if s.kind == "16-bit grey" and s.brightest < DARK]
    if dark:
        what = "use less than an eighth of their range, as 12-bit data in 16 bits does: they will look nearly black"
        yield Problem("warning", f"{_example(dark, '16-bit images')} {what}. Stretch them to the whole range.")
    plain = [s for s in seen if s.plain]
    if plain:
        yield Problem("warning", f"{_example(plain, 'images')} have one colour only.")


def _contradictions(group: Sequence[_Record]) -> Iterator[Problem]:
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


def _split_sizes(category: str, mine: Sequence[_Record]) -> Iterator[Problem]:
    train = sum(s.sample.split == "train" and not s.sample.is_anomaly for s in mine)
    test = Counter(s.sample.is_anomaly for s in mine if s.sample.split == "test")
    if not train:
        yield Problem("error", f"{category} has no good images to train on.")
    elif train < FEW:
        yield Problem("warning", f"{category} has {train} good images to train on: many detectors need more.")
    for anomaly, what in ((True, "defects"), (False, "good images")):
        if not test[anomaly]:
            yield Problem("warning", f"{category} has no {what} to test: image metrics are not defined.")


def _published(dataset: Dataset, category: str, mine: Sequence[_Record]) -> Iterator[Problem]:
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
        told = f"{words.format(*found)}, but published are {words.format(*expected)}"
        yield Problem("warning", f"{category} has {told}: it is incomplete, or not the published data.")
    if len(expected) == 2 and len(mine) != sum(expected):
        yield Problem("warning", f"{category} has {len(mine)} images, but {sum(expected)} are published.")


def _mask_problems(category: str, mine: Sequence[_Record]) -> Iterator[Problem]:
    defects = [s for s in mine if s.sample.is_anomaly and not s.mask_error]
    missing = [s for s in defects if s.mask is None]
    if missing and len(missing) == len(defects):
        yield Problem("warning", f"no defect of {category} has a mask: image metrics only.")
    elif missing:
        yield Problem(
            "warning",
            f"{_example(missing, f'of {len(defects)} defects of {category}')} have no mask: left out of pixel metrics.",
        )
    if empty := [s for s in defects if s.mask and not s.marked]:
        yield Problem(
            "warning", f"{_example(empty, f'defects of {category}')} have an empty mask: left out of pixel metrics."
        )
    if false := [s for s in mine if not s.sample.is_anomaly and s.marked]:
        yield Problem("error", f"{_example(false, f'good images of {category}')} have a mask that marks a defect.")
    other = [s for s in mine if s.mask and abs(s.mask[0] * s.size[1] / (s.mask[1] * s.size[0]) - 1) > ASPECT]
    if other:
        yield Problem("warning", f"{_example(other, f'masks of {category}')} have other proportions than their images.")


def _example(which: Sequence[_Record], what: str) -> str:
    return f"{len(which)} {what} (for example {which[0].sample.id})"


def _list_text(counts: Mapping[str, int]) -> str:
    shown = [f"{n} {what}" for what, n in list(counts.items())[:6]]
    return ", ".join(shown) + (f" and {len(counts) - 6} more kinds" if len(counts) > 6 else "")


def _count_text(category: str, splits: Mapping[str, Mapping[str, int]]) -> str:
    parts = [f"{sum(kinds.values())} {split} ({_list_text(kinds)})" for split, kinds in splits.items()]
    return f"{category}: {'; '.join(parts)}"


def _size_text(sizes: Mapping[str, int]) -> str:
    """Return the size of the images, or the range of their heights and widths."""
    if len(sizes) < 2:
        return "".join(f"images: all {size} (height x width)" for size in sizes)
    heights, widths = zip(*(map(int, size.split("x")) for size in sizes), strict=True)
    return f"images: {len(sizes)} sizes, {min(heights)} to {max(heights)} high, {min(widths)} to {max(widths)} wide"
