"""Checks every image and mask of a dataset: counts, sizes, masks, duplicates, and problems.

The check goes on after a problem. Each file that cannot be read is named with the reason.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.data import intensity, near_copies
from iadbe.data.problems import VIEW, Problem, Record, problems, unread_images
from iadbe.dataset import Dataset
from iadbe.errors import BadData, Missing, number_of
from iadbe.files import annotation_files, image_io, layout, mask_io, pages
from iadbe.types import IntensityRange, Sample


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check; :meth:`as_dict` returns it as JSON data."""

    title: str
    root: str  # empty where the dataset draws its images
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]  # category -> split -> "good" or kind of defect -> images
    sizes: Mapping[str, int]  # "HEIGHTxWIDTH" -> images, the most frequent first
    converted: Mapping[str, int]  # what had to be converted to RGB -> images
    masks: Mapping[str, int]  # of defects: present, missing, empty, other_size (than the image's)
    defect_share: Mapping[str, float]  # category -> mean share of a defective image's pixels, where there are masks
    mask_reading: Mapping[str, int]  # how masks of defects were read, such as "labels 100, 255" -> masks
    counted: Mapping[str, float]  # category -> mean share of an image's pixels that count, where there is a region
    intensity: str  # the range of deep images (more than 8 bits); "": there are none
    duplicates: tuple[tuple[str, ...], ...]  # samples with equal pixels
    near_copies: tuple[tuple[str, str], ...]  # samples that are nearly the same image and are not in one group
    unused: Mapping[str, int]  # folder below the root -> images in it that the dataset does not contain
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return all(p.grade != "error" for p in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries, lists, strings and numbers."""
        pairs = {"duplicates": self.duplicates, "near_copies": self.near_copies}
        return {**asdict(self), **{key: [list(ids) for ids in value] for key, value in pairs.items()}, "ok": self.ok}

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
            if self.mask_reading:
                facts.append(f"masks read as: {_list_text(self.mask_reading)}")
        if self.intensity:
            facts.append(f"deep images: {self.intensity}")
        for category, share in self.defect_share.items():
            facts.append(f"{category}: a defect covers {100 * share:.2g} % of its image on average")
        for category, share in self.counted.items():
            facts.append(f"{category}: {100 * share:.3g} % of an image counts on average (region of interest)")
        if self.unused:
            facts.append(f"images in this folder that are not part of the dataset: {_list_text(self.unused)}")
        facts += [f"{p.grade}: {p.sentence}" for p in self.problems]
        grades = Counter(p.grade for p in self.problems)
        counts = ((grades[name], name) for name in ("error", "warning"))
        facts.append(", ".join(number_of(count, name) for count, name in counts))
        return [fact for fact in facts if fact]


def check(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Report:
    """Check every image and mask of a dataset; ``progress`` is called with (done, total)."""
    samples = dataset.samples()
    dataset.intensity = intensity.learn(dataset, (s for s in samples if s.split == "train" and not s.is_anomaly))
    seen: list[Record] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
        for record in readers.map(partial(_inspect, dataset), samples):
            seen.append(record)
            if progress is not None:
                progress(len(seen), len(samples))
    read = [s for s in seen if not s.error]
    duplicates = _duplicates(read)
    copies = _near_copies(read, {s.sample.id for group in duplicates for s in group})
    shares: dict[str, list[float]] = defaultdict(list)
    for s in read:
        if s.sample.is_anomaly and s.mask:
            shares[s.sample.category].append(s.marked)
    sizes = Counter(f"{s.size[0]}x{s.size[1]}" for s in read)
    root = _root(dataset, samples)
    scale = dataset.intensity
    known = getattr(getattr(dataset, "annotations", None), "files", {})
    unread = annotation_files.find(root, samples, known) if root else ()
    return Report(
        title=str(dataset.title or type(dataset).__name__),
        root=str(root or ""),
        counts=_counts(dataset, samples),
        sizes=dict(sizes.most_common()),
        converted=dict(Counter(s.kind for s in read if s.kind != "RGB").most_common()),
        masks=_masks(dataset, read),
        defect_share={c: float(np.mean(v)) for c, v in sorted(shares.items())},
        mask_reading=dict(Counter(s.mask_reading for s in read if s.mask_reading).most_common()),
        counted=_counted(read),
        intensity="" if scale is None else _intensity_text(scale),
        duplicates=tuple(tuple(s.sample.id for s in group) for group in duplicates),
        near_copies=tuple((a.sample.id, b.sample.id) for a, b in copies),
        unused=_unused(dataset, samples),
        problems=(
            *problems(dataset, seen, duplicates, copies, unread),
            *(unread_images(layout.other_endings(root)) if root else ()),
        ),
    )


def _inspect(dataset: Dataset, sample: Sample) -> Record:
    root = getattr(dataset, "root", None)
    try:
        pixels = dataset.image(sample)
        file = root / sample.image if root else Path()
        header = image_io.read_header(file) if root and pages.file_of(file).is_file() else None
    except (BadData, Missing, OSError) as error:
        return Record(sample, error=str(error))
    mask, region, problem = None, None, ""
    try:
        mask = dataset.mask(sample)
        region = dataset.region(sample)
    except (BadData, Missing, OSError) as error:
        problem = str(error)
    seen = None if mask is None or region is None or mask.shape != region.shape else mask & region
    low, high = int(pixels.min()), int(pixels.max())
    return Record(
        sample,
        size=(pixels.shape[0], pixels.shape[1]),
        kind=header.kind if header else "RGB",
        deep=header is not None and header.deep,
        pixels=f"{pixels.shape} {hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()}",
        brightest=high,
        plain=low == high,
        mask=None if mask is None else (mask.shape[0], mask.shape[1]),
        marked=0.0 if mask is None else float(mask.mean()),
        in_view=mask is not None and bool(image_io.resized(mask, VIEW, VIEW).any()),
        mask_reading="" if mask is None else _mask_reading(dataset, root, sample, mask),
        mask_error=problem,
        counted=None if region is None else float(region.mean()),
        outside=seen is not None and mask is not None and bool(mask.any()) and not seen.any(),
        signature=near_copies.thumbnail(pixels),
    )


def _mask_reading(dataset: Dataset, root: Path | None, sample: Sample, mask: np.ndarray) -> str:
    """Return how the mask's file was read; "" where the dataset has a rule of its own."""
    annotations = getattr(getattr(dataset, "annotations", None), "files", {})
    if sample.mask in annotations:
        return f"shapes of {annotations[sample.mask]}"
    file = root / sample.mask if root and sample.mask else None
    if file is None or not sample.is_anomaly or not file.is_file() or not image_io.is_image(file):
        return ""
    found = mask_io.read(file)
    return found.how if np.array_equal(found.mask, mask) else ""


def _near_copies(read: Sequence[Record], equal: set[str]) -> list[tuple[Record, Record]]:
    """Return pairs of images of a category that are nearly the same, in different splits or both tested."""
    pairs = []
    for category in sorted({s.sample.category for s in read}):
        mine = [s for s in read if s.sample.category == category and s.sample.id not in equal and not s.plain]
        used: list[Record] = []
        for split in ("train", "val", "test"):
            new = [s for s in mine if s.sample.split == split]
            for references in [used, new] if split == "test" else [used]:
                pairs += _matches(new, references, mine)
            used = used + new
    return pairs


def _matches(
    queries: Sequence[Record], references: Sequence[Record], category: Sequence[Record]
) -> list[tuple[Record, Record]]:
    if not queries or not references:
        return []
    stacks = (np.stack([s.signature for s in some]) for some in (queries, references, category))
    of = near_copies.find(*stacks, same=queries is references)
    pairs = [
        (references[int(nearest)], query)
        for query, nearest, correlation in zip(queries, of.nearest, of.correlation, strict=True)
        if correlation > near_copies.MIN_CORRELATION
    ]
    return [(a, b) for a, b in pairs if a.sample.group_id != b.sample.group_id or a.sample.split != b.sample.split]


def _intensity_text(scale: IntensityRange) -> str:
    shown = f"; shown is {scale.projection.source}" if scale.projection else ""
    return f"{scale.low:g} is black and {scale.high:g} is white, {scale.source}{shown}"


def _root(dataset: Dataset, samples: Sequence[Sample]) -> Path | None:
    """Return the folder of a dataset that reads files, None for one that draws its images."""
    root: Path | None = getattr(dataset, "root", None)
    return root if root and any(pages.file_of(root / s.image).is_file() for s in samples) else None


def _counts(dataset: Dataset, samples: Iterable[Sample]) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {c: {} for c in dataset.categories}
    for s in samples:
        kinds = found.setdefault(s.category, {}).setdefault(s.split, {})
        kinds[s.defect] = kinds.get(s.defect, 0) + 1
    order = ("train", "val", "test")
    return {c: dict(sorted(splits.items(), key=lambda s: order.index(s[0]))) for c, splits in found.items()}


def _masks(dataset: Dataset, read: Iterable[Record]) -> dict[str, int]:
    defects = [s for s in read if s.sample.is_anomaly]
    if "mask" not in dataset.gives:
        return {"present": 0, "missing": 0, "empty": 0, "other_size": 0}
    there = [s for s in defects if s.mask]
    empty = sum(not s.marked for s in there)
    other = sum(s.mask != s.size for s in there)
    return {"present": len(there), "missing": len(defects) - len(there), "empty": empty, "other_size": other}


def _counted(read: Iterable[Record]) -> dict[str, float]:
    shares: dict[str, list[float]] = defaultdict(list)
    for s in read:
        shares[s.sample.category].append(1.0 if s.counted is None else s.counted)
    return {c: float(np.mean(own)) for c, own in sorted(shares.items()) if min(own) < 1}


def _duplicates(read: Iterable[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for s in read:
        groups[s.pixels].append(s)
    return [group for group in groups.values() if len(group) > 1]


def _unused(dataset: Dataset, samples: Sequence[Sample]) -> dict[str, int]:
    root = _root(dataset, samples)
    if root is None:
        return {}
    used = {pages.file_of(Path(path)).as_posix() for s in samples for path in (s.image, s.mask, s.depth) if path}
    left = [p for p in layout.images_below(root) if p not in used and p.rpartition("/")[0] not in used]
    return dict(Counter(p.rpartition("/")[0] or "." for p in left))


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
