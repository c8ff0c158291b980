"""Your own folders of normal images and, if you have them, defects and masks.

Differs: the parameters are those of anomalib's ``Folder``, so its files work unchanged, with these differences.
    * Defects of ``abnormal_dir`` stay in the test split when synthetic defects are requested.
    * No image is ever in two splits. ``normal_split_ratio`` is the share of the normal images.
Layout:
    * Normal test images come from ``normal_test_dir``. Without it, a seeded share of ``normal_dir`` is held out:
      ``normal_split_ratio``, or ``test_split_ratio`` with synthetic defects.
    * ``test_split_mode``: "from_dir" tests these images and the defects of ``abnormal_dir``. "synthetic" also renders
      defects, with masks, into half of the normal test images (see :mod:`iadbe.data.synthetic_defects`). "none" tests
      only images with a folder of their own: nothing is held out of ``normal_dir``.
    * The kind of a defect is the name of its folder: that of ``abnormal_dir``, or of the folder directly below it.
    * With ``pages``, every page of a TIFF is an image of its own, ``FILE#0003``, and a mask's file has as many pages.
      Pages count as independent; where those of a file show one part, ``group`` ``(.*)#`` keeps them in one split.
    * A mask has its image's stem, or ``STEM_mask``, ``STEM_GT``, ``STEM_label``, in ``mask_dir`` or in a folder below
      it named like the kind.
    * Annotations of LabelMe, COCO and CVAT are read as masks where ``mask_dir`` has none (``annotations``; see
      :mod:`iadbe.files.annotation_index`). An image of ``normal_dir`` with an annotated defect is a defect, and is
      tested. The most frequent class of an image is then its kind.
    * ``split`` replaces the folders by a CSV file (see :mod:`iadbe.files.split_csv`). Defects that it has in train or
      val are tested.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from iadbe import system
from iadbe.data import folder_layout, synthetic_defects
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.files import annotation_index, image_io, layout, split_csv
from iadbe.files.annotation_index import Annotations
from iadbe.files.bad_labels import BadLabels
from iadbe.files.folder_names import is_good
from iadbe.files.groups import groups_of, in_groups_of
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample

Mode = Literal["from_dir", "synthetic", "none"]
SYNTHETIC = "synthetic"  # the kind of a synthetic defect


class Folder(Dataset):
    """One category, from folders that the parameters name."""

    title: ClassVar[str] = "your own folders"
    licence: ClassVar[str] = "yours"
    added: ClassVar[dict[str, Any]] = {
        "group": "",
        "pages": False,
        "split": "",
        "bad_labels": "error",
        "annotations": "auto",
        "good_names": ("good", "ok", "normal"),
        "roi_names": ("roi",),
        "ignore_names": ("ignore",),
    }
    layout_description: ClassVar[str] = "a folder named good, ok, pass …, or nothing but images (your own folders)"

    def __init__(
        self,
        root: str = "",
        normal_dir: tuple[str, ...] | str = "good",
        abnormal_dir: tuple[str, ...] | str | None = None,
        normal_test_dir: tuple[str, ...] | str | None = None,
        mask_dir: tuple[str, ...] | str | None = None,
        normal_split_ratio: float = 0.2,
        test_split_mode: Literal["from_dir", "synthetic", "none"] = "from_dir",
        test_split_ratio: float = 0.2,
        extensions: tuple[str, ...] | None = None,
        name: str = "",
        seed: int = 0,
        group: str = "",
        pages: bool = False,
        split: str = "",
        annotations: str = "auto",
        good_names: tuple[str, ...] = ("good", "ok", "normal"),
        roi_names: tuple[str, ...] = ("roi",),
        ignore_names: tuple[str, ...] = ("ignore",),
        bad_labels: Literal["error", "drop"] = "error",
    ) -> None:
        """Index folders.

        Args:
            root: folder that holds the others
            normal_dir: folder or folders of normal images, including subfolders
            abnormal_dir: folder or folders of defects
            normal_test_dir: folder or folders of normal images for the test only
            mask_dir: folder or folders of the defects' masks
            normal_split_ratio: share of normal_dir that is held out for the test where there is no normal_test_dir
            test_split_mode: from_dir, synthetic (render defects into half of the normal test images) or none
            test_split_ratio: as normal_split_ratio, with synthetic defects
            extensions: file extensions of the images, for example .png; by default all known ones
            name: the category's name; by default the folder's
            seed: of the held-out images and the synthetic defects
            group: dependent images that stay in one split: a regular expression on the path, or FILE.csv:COLUMN
            pages: read every page of a TIFF as an image of its own
            split: CSV file with the columns path and split, and label, kind, group, mask, instead of the folders
            annotations: a LabelMe, COCO or CVAT file or a folder of them; auto (those beside the images); or none
            good_names: annotated classes that are not defects
            roi_names: annotated classes of the pixels that count
            ignore_names: annotated classes of the pixels that do not count
            bad_labels: raise an error that names all lines of split that cannot be used, or drop their images
        """
        super().__init__(root)
        self.name = name or Path(os.path.abspath(self.root)).name
        self.mode, self.seed, self.group, self.pages = _checked_mode(test_split_mode), seed, group, pages
        self.normal_split_ratio = layout.check_share("folder.normal_split_ratio", normal_split_ratio)
        self.test_split_ratio = layout.check_share("folder.test_split_ratio", test_split_ratio)
        self._extensions = tuple("." + e.lower().lstrip(".") for e in _several(extensions)) or None
        self._bad_labels = BadLabels(bad_labels, "folder.bad_labels")
        self.split, self._annotation_rule = split, annotations
        self._labels = {"good": _several(good_names), "roi": _several(roi_names), "ignore": _several(ignore_names)}
        self._normal = self._find("normal_dir", () if split else normal_dir)
        self._abnormal = self._find("abnormal_dir", abnormal_dir)
        self._normal_test = self._find("normal_test_dir", normal_test_dir)
        self._masks = self._find("mask_dir", mask_dir)

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match folders whose names identify normal images, and perhaps defects."""
        return folder_layout.match(folder)

    @property
    def categories(self) -> tuple[str, ...]:
        """The one category."""
        return (self.name,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index: normal images, then defects by folder."""
        return self._samples

    def image(self, sample: Sample) -> np.ndarray:
        """Return an image as (H, W, 3) uint8 RGB, with its synthetic defect if it has one."""
        pixels = super().image(sample)
        if not self._is_synthetic(sample):
            return pixels
        rng = _generator(sample)
        height, width = pixels.shape[:2]
        return synthetic_defects.blend(pixels, synthetic_defects.random_region(height, width, rng), rng)

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool: a file's, annotated shapes, or the region of a synthetic defect."""
        if sample.mask is not None and sample.mask in self.annotations.files:
            return self.annotations.defects(sample.image, image_io.size(self.root / sample.image))
        if not self._is_synthetic(sample):
            return super().mask(sample)
        height, width = image_io.size(self.root / sample.image)
        return synthetic_defects.random_region(height, width, _generator(sample))

    def region(self, sample: Sample) -> np.ndarray | None:
        """Return which pixels count, (H, W) bool, by the data set's region and by annotations; None: all of them."""
        annotated = None
        if self.annotations.has_region(sample.image):
            annotated = self.annotations.region(sample.image, image_io.size(self.root / sample.image))
        given = super().region(sample)
        return annotated if given is None else given if annotated is None else given & annotated

    def common_region(self, sample: Sample) -> np.ndarray | None:
        """Return the region of all images; None where there is none, or where annotations give some their own."""
        own = any(self.annotations.has_region(image) for image in self.annotations.of)
        return None if own else super().common_region(sample)

    def region_digest(self, samples: Sequence[Sample]) -> str:
        """Return a digest of the regions of some images, also of annotated ones; "" where there are none."""
        return super().region_digest(samples) + self.annotations.region_digest(s.image for s in samples)

    @cached_property
    def annotations(self) -> Annotations:
        """The annotations of all images."""
        named = (*self._normal, *self._normal_test, *self._abnormal)
        images = [line.path for line in self._lines] if self.split else self._list(named)
        return annotation_index.read(self.root, images, self._annotation_rule, **self._labels)

    @cached_property
    def _lines(self) -> tuple[split_csv.Line, ...]:
        return split_csv.read(self.root, self.split, self._bad_labels)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        if self.split:
            return self._of_lines()
        normal, extra = self._list(self._normal), self._list(self._normal_test)
        if not normal:
            raise BadData(
                f"found 0 good images in {', '.join(str(self.root / d) for d in self._normal)} "
                f"(looked for {layout.extensions_text(self._extensions)}).{self._others(self._normal[0])}"
            )
        if self._normal_test and not extra:
            raise BadData(f"found 0 good images in {self.root / self._normal_test[0]}, the normal_test_dir.")
        defects = self._defects(set(normal) | set(extra))
        if marked := {path for path in (*normal, *extra) if self.annotations.kind(path)}:
            defects += [self._defect(path, self.annotations.kind(path), None) for path in sorted(marked)]
            normal, extra = ([path for path in some if path not in marked] for some in (normal, extra))
            if not normal:
                raise BadData(self._all_marked(marked))
        tested = [*extra, *(s.image for s in defects)]
        groups = groups_of(self.root, self.group, [*normal, *tested], "folder.group")
        test = self._tested(normal, extra, tested, groups)
        synthetic = self._choose_synthetic(sorted(test))
        samples = [*(self._good(path, test, synthetic) for path in sorted({*normal, *extra})), *defects]
        return tuple(replace(s, group=groups.get(s.image, "")) for s in samples)

    def _tested(self, normal: list[str], extra: list[str], tested: list[str], groups: Mapping[str, str]) -> set[str]:
        """Return the good images of the test: those of their own folder, of tested groups, and a share of the rest."""
        test = {*extra, *in_groups_of(normal, tested, groups)}
        if not extra and self.mode != "none":
            share = self.test_split_ratio if self.mode == SYNTHETIC else self.normal_split_ratio
            rest = [path for path in normal if path not in test]
            if test:  # by their groups
                share = max(0.0, (share * len(normal) - len(test)) / max(1, len(rest)))
            test |= layout.hold_out(rest, share, self.seed, 2 if self.mode == SYNTHETIC else 1, groups)
        if test.issuperset(normal):
            where = "in groups that are tested" if groups else "in normal_test_dir"
            raise BadData(f"all good images of {self.root} are {where}: none is left to train on.")
        return test

    def _of_lines(self) -> tuple[Sample, ...]:
        """Return the samples that the split file names."""
        samples = []
        for line in self._lines:
            kind = line.kind or self.annotations.kind(line.path)
            defective = bool(line.mask or kind) if line.label is None else line.label
            found = (
                self._defect(line.path, kind or split_csv.DEFECT, line.mask or None)
                if defective
                else Sample(f"{self.name}/{line.path}", self.name, line.split, "good", line.path)
            )
            samples.append(replace(found, group=line.group))
        if not any(s.split == "train" for s in samples):
            raise BadData(f"{self.root / self.split} has no good image in the split train.")
        return tuple(sorted(samples, key=lambda s: s.image))

    def _defect(self, path: str, kind: str, mask: str | None) -> Sample:
        """Return a defect, whose mask may be its annotation."""
        if mask is None and self.annotations.kind(path):
            mask = self.annotations.of[path].file
        return Sample(f"{self.name}/{path}", self.name, "test", kind, path, mask)

    def _all_marked(self, marked: set[str]) -> str:
        example = sorted(marked)[0]
        return (
            f"all {len(marked)} good images of {self.root} have an annotated defect, for example "
            f"{self.annotations.kind(example)!r} in {example}. Name the classes that are no defects with "
            "--data.good_names, or read no annotations: --data.annotations none."
        )

    def _good(self, path: str, test: set[str], synthetic: set[str]) -> Sample:
        if path in synthetic:
            return Sample(f"{self.name}/{SYNTHETIC}/{self.seed}/{path}", self.name, "test", SYNTHETIC, path, path)
        return Sample(f"{self.name}/{path}", self.name, "test" if path in test else "train", "good", path)

    def _choose_synthetic(self, test: list[str]) -> set[str]:
        """Choose the good test images that get a defect: half of them, the smaller one, but not none."""
        if self.mode != SYNTHETIC:
            return set()
        return layout.draw_groups(([path] for path in test), max(1, len(test) // 2), self.seed + 1)

    def _defects(self, good: set[str]) -> list[Sample]:
        found = []
        for folder in self._abnormal:
            paths = [path for path in self._list((folder,)) if path not in good]
            if not paths:
                raise BadData(
                    f"found 0 defects in {self.root / folder} (looked for {layout.extensions_text(self._extensions)}). "
                    f"Leave out abnormal_dir if there are none.{self._others(folder)}"
                )
            masks = self._pair(folder, paths)
            for path in paths:
                found.append(
                    self._defect(path, self.annotations.kind(path) or self._kind(folder, path), masks.get(path))
                )
        return found

    def _others(self, folder: str) -> str:
        return "" if self._extensions else layout.endings_text(self.root / folder)

    def _kind(self, folder: str, path: str) -> str:
        below = Path(path).relative_to(folder).parts
        kind = below[0] if len(below) > 1 else Path(os.path.abspath(self.root / folder)).name
        if is_good(kind):
            raise BadData(
                f"{self.root / path} lies in abnormal_dir, but its folder is called {kind!r}. "
                f"Name that folder as normal_test_dir, or name the folders of the defects one by one."
            )
        return kind

    def _pair(self, folder: str, paths: list[str]) -> dict[str, str]:
        """Return image -> mask, for the images of one folder that have one."""
        if not self._masks:
            return {}
        aligned = len(self._masks) == len(self._abnormal)
        places = [self._masks[self._abnormal.index(folder)]] if aligned else list(self._masks)
        known: dict[str, dict[str, str]] = {}
        pairs: dict[str, str] = {}
        for path in paths:
            inner = Path(path).relative_to(folder).parent.as_posix()
            for place in (f"{p}/{sub}" for p in places for sub in (inner, self._kind(folder, path), ".")):
                masks = known.setdefault(place, layout.masks_by_stem(self.root / place))
                if (name := masks.get(Path(path).stem)) and (mask := _plain(f"{place}/{name}")) != path:
                    pairs[path] = layout.mask_of_page(self.root, path, mask)
                    break
        if not pairs:
            there = layout.images_below(self.root / places[0])
            stem = Path(paths[0]).stem
            raise BadData(
                f"none of the {len(paths)} defects in {self.root / folder} has a mask in {self.root / places[0]}: "
                f"looked for {stem}_mask.png, {stem}.png …, found {', '.join(there[:3]) or 'no images'}."
            )
        if len(set(pairs.values())) < len(pairs):
            twice = next(m for m in pairs.values() if list(pairs.values()).count(m) > 1)
            raise BadData(
                f"{self.root / twice} fits several defects. Put the masks into one folder per kind of defect."
            )
        return pairs

    def _list(self, folders: tuple[str, ...]) -> list[str]:
        """List images below folders, leaving out what another parameter names."""
        named = {*self._normal, *self._abnormal, *self._normal_test, *self._masks} - set(folders)
        found: dict[str, None] = {}
        for folder in folders:
            without = [self.root / other for other in named]
            for path in layout.images_below(self.root / folder, self._extensions, without):
                found[_plain(f"{folder}/{path}")] = None
        beside = {_plain(f"{m}/{n}") for m in set(folders) & set(self._masks) for n in _marked(self.root / m)}
        paths = [path for path in found if path not in beside]
        stems: dict[str, str] = {}
        for path in paths:
            if (twin := stems.setdefault(os.path.splitext(path)[0], path)) != path:
                raise BadData(
                    f"{self.root / twin} and {Path(path).name} have the same name: is one of them a mask? Say which "
                    f"files are images: --data.extensions {Path(twin).suffix}"
                )
        return [page for path in paths for page in layout.pages_of(self.root, path)] if self.pages else paths

    def _find(self, parameter: str, value: tuple[str, ...] | str | None) -> tuple[str, ...]:
        """Return the folders that a parameter names, relative to root."""
        found = []
        for text in _several(value):
            path = Path(os.path.abspath(self.root / Path(text.replace("\\", "/")).expanduser()))
            if not path.is_dir():
                hint = did_you_mean(text, layout.subfolders(self.root))
                there = ", ".join(layout.subfolders(self.root)[:8]) or "no folders"
                raise BadData(f"there is no folder {path}, the {parameter}.{hint} {self.root} holds {there}.")
            relative = system.relative(path, self.root)
            if relative.split("/")[0] == ".." and not Path(text).expanduser().is_absolute():
                raise BadData(f"{path}, the {parameter}, lies outside of the root {self.root}. Give its absolute path.")
            found.append(relative)
        return tuple(found)

    def _is_synthetic(self, sample: Sample) -> bool:
        return sample.defect == SYNTHETIC and sample.id == f"{self.name}/{SYNTHETIC}/{self.seed}/{sample.image}"


def _generator(sample: Sample) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:8], "big"))


def _checked_mode(mode: str) -> str:
    if mode not in get_args(Mode):
        hint = did_you_mean(str(mode), get_args(Mode))
        raise BadConfig(f"folder.test_split_mode is {mode!r}, not one of {', '.join(get_args(Mode))}.{hint}")
    return mode


def _several(value: tuple[str, ...] | str | None) -> tuple[str, ...]:
    return () if value is None or value == "" else (value,) if isinstance(value, str) else tuple(value)


def _plain(path: str) -> str:
    return Path(path).as_posix()  # "./a//b" -> "a/b"


def _marked(folder: Path) -> list[str]:
    """Return the masks that lie beside their images: a_mask.png where there is an a.png."""
    stems = {Path(name).stem for name in layout.images(folder)}
    return [name for stem, name in layout.masks_by_stem(folder).items() if stem in stems and Path(name).stem != stem]
