"""Real-IAD: thirty objects, each seen by five cameras, with the official train and test lists.

Paper: Wang et al., "Real-IAD: a real-world multi-view dataset for benchmarking versatile industrial anomaly detection",
    CVPR 2024.
Differs:
    * The lists are ``realiad_jsons`` (all five views) or ``realiad_jsons_sv`` (the view from above).
    * Each image is a sample of its own. The paper's score of a whole object, over its views, is not computed.
    * The lists with defects in training (``fuiad``) are not read. The setting noisy makes such data from any dataset.
Numbers: 151050 images: 36465 training images, 63256 normal and 51329 defective test images.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import layout
from iadbe.files.bad_labels import BadLabels
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample

LISTS = {"all": "realiad_jsons", "single": "realiad_jsons_sv"}
SIZES = ("realiad_256", "realiad_512", "realiad_1024", "realiad_raw")


class RealIAD(Dataset):
    """One category per object with a list and a folder of images."""

    title: ClassVar[str] = "Real-IAD"
    year: ClassVar[int] = 2024
    paper: ClassVar[str] = 'Wang et al., "Real-IAD", CVPR 2024'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://realiad4ad.github.io/Real-IAD"
    layout_description: ClassVar[str] = "realiad_jsons with realiad_256, realiad_512 … or realiad_raw (Real-IAD)"
    total: ClassVar[tuple[int, ...]] = (36465, 63256, 51329)
    manual_download: ClassVar[str] = (
        "Ask for access through https://realiad4ad.github.io/Real-IAD, and unpack the archives of one size and of the "
        "lists so that the folder holds, for example, realiad_256 and realiad_jsons."
    )

    added: ClassVar[dict[str, Any]] = {"bad_labels": "error"}
    renamed = {"pictures": "images"}

    def __init__(
        self,
        root: str = "",
        views: Literal["all", "single"] = "all",
        images: str = "",
        bad_labels: Literal["error", "drop"] = "error",
    ) -> None:
        """Index a folder.

        Args:
            root: folder with realiad_jsons and the images
            views: all five views of an object, or the single one from above
            images: folder of the images, for example realiad_512; by default the smallest size
            bad_labels: raise an error that names all entries that cannot be used, or drop their images
        """
        super().__init__(root)
        self._bad_labels = BadLabels(bad_labels, "real_iad.bad_labels")
        if views not in LISTS:
            raise BadConfig(f"real_iad.views is {views!r}, not one of {', '.join(LISTS)}.")
        sizes = _sizes(self.root)
        self.images = images or (sizes or ("",))[0]
        self._lists = _lists(self.root, LISTS[views])
        if self._lists is None or not (self.root / self.images).is_dir() or not self.images:
            raise BadData(
                f"{self.root} must hold {LISTS[views]} and {self.images or ' or '.join(SIZES)}, but holds "
                f"{layout.contents(self.root)}. Give the folder that holds both."
            )

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        sizes = _sizes(folder)
        for views, name in LISTS.items():
            if sizes and _lists(folder, name) is not None:
                return LayoutMatch(f"Real-IAD ({sizes[0]}, {views} views)", {"views": views})
        return None

    @property
    def categories(self) -> tuple[str, ...]:
        """The objects that have a list and a folder of images."""
        listed = sorted(file.stem for file in (self._lists or Path()).glob("*.json"))
        return tuple(name for name in listed if (self.root / self.images / name).is_dir())

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, object by object: train, then test. Reads the lists, no images."""
        return self._samples

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        found = [sample for category in self.categories for sample in self._split_samples(category)]
        self._bad_labels.check("lists or entries")
        if not found:
            raise BadData(f"{self._lists} lists no object that has a folder in {self.root / self.images}.")
        return tuple(found)

    def _split_samples(self, category: str) -> list[Sample]:
        file, found = (self._lists or Path()) / f"{category}.json", []
        with self._bad_labels.collected():
            try:
                listed = json.loads(layout.read_text(file))
                good = listed.get("meta", {}).get("normal_class", "OK")
                entries = [(split, n, e) for split in ("train", "test") for n, e in enumerate(listed[split], start=1)]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise BadData(f"{file} is not a list of images for train and test: {error}.") from error
            for split, number, entry in entries:
                with self._bad_labels.collected():
                    found.append(
                        self._listed_sample(category, split, entry, good, f"{file}, entry {number} of {split}")
                    )
        return found

    def _listed_sample(self, category: str, split: str, entry: Any, good: str, where: str) -> Sample:
        try:
            return self._sample(category, split, entry, good)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadData(f"{where} is not an image with image_path and anomaly_class.") from error

    def _sample(self, category: str, split: str, entry: dict[str, Any], good: str) -> Sample:
        folder, path, mask = f"{self.images}/{category}", str(entry["image_path"]), entry.get("mask_path")
        kind = "good" if entry["anomaly_class"] == good else str(entry["anomaly_class"])
        marks = f"{folder}/{mask}" if mask and kind != "good" else None
        part = f"{category}/{path.rpartition('/')[0]}"  # one folder holds the views of one object
        return Sample(f"{category}/{path}", category, split, kind, f"{folder}/{path}", marks, group=part)


def _sizes(root: Path) -> tuple[str, ...]:
    return tuple(name for name in SIZES if (root / name).is_dir())


def _lists(root: Path, name: str) -> Path | None:
    """Return the folder of lists; the archive nests it in a folder ``realiad_jsons``."""
    places = (root / "realiad_jsons" / name, root / name)
    return next((place for place in places if any(place.glob("*.json"))), None)
