"""ELPV: electroluminescence images of mono- and polycrystalline solar cells, each labelled with a defect probability.

Paper: Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence images",
    Solar Energy 185, 2019; Buerhop-Lutz et al., EU PVSEC 2018.
Differs:
    * There is no official split for one-class training. A seeded share of the normal cells is trained on; the rest and
      all defective cells are tested.
    * Cells of one module may be in both splits, because the data does not say which module a cell is from.
    * There are no masks, so there are image metrics only.
Numbers: 2624 cells. At 0.5: 705 normal and 369 defective mono, 1098 normal and 452 defective poly.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files import layout
from iadbe.files.bad_labels import BadLabels
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample


class ELPV(Dataset):
    """Two categories; the data comes with the package ``elpv-dataset``, or lies in a folder with ``labels.csv``."""

    title: ClassVar[str] = "ELPV"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = 'Deitsch et al., "Automatic classification of defective photovoltaic module cells", 2019'
    gives: frozenset[str] = frozenset({"image"})
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://github.com/zae-bayern/elpv-dataset"
    manual_download: ClassVar[str] = "It comes as a package: pip install 'iadbe[elpv]'"
    layout_description: ClassVar[str] = "labels.csv with images (ELPV)"
    added: ClassVar[dict[str, Any]] = {"bad_labels": "error"}
    counts: ClassVar[dict[str, tuple[int, ...]]] = {"mono": (705, 369), "poly": (1098, 452)}  # normal, defective at 0.5

    def __init__(
        self,
        root: str = "",
        threshold: float = 0.5,
        train_share: float = 0.8,
        seed: int = 0,
        bad_labels: Literal["error", "drop"] = "error",
    ) -> None:
        """Index a folder.

        Args:
            root: folder with labels.csv; by default that of the installed package elpv-dataset
            threshold: a cell of at least this defect probability counts as defective; above 0, up to 1
            train_share: share of a category's normal cells to train on
            seed: of the random split
            bad_labels: raise an error that names all lines that cannot be read, or drop their images
        """
        super().__init__(root or str(_installed()))
        self.train_share = layout.check_share("elpv.train_share", train_share)
        self.threshold, self.seed = threshold, seed
        self._bad_labels = BadLabels(bad_labels, "elpv.bad_labels")
        if not 0 < threshold <= 1:
            raise BadConfig(f"elpv.threshold is {threshold}, but it is a probability above 0 and up to 1.")
        if not (self.root / "labels.csv").is_file():
            raise BadData(f"there is no labels.csv in {self.root}. Leave out --data.root to use the installed package.")

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        there = (folder / "labels.csv").is_file() and (folder / "images/cell0001.png").is_file()
        return LayoutMatch("ELPV (solar cells)") if there else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The types of cells: mono and poly."""
        return tuple(sorted({category for _, _, category in self._labels}))

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, in the order of the labels."""
        return self._samples

    @cached_property
    def _labels(self) -> tuple[tuple[str, float, str], ...]:
        file = self.root / "labels.csv"
        rows = []
        for number, line in enumerate(layout.read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            with self._bad_labels.collected():
                rows.append(_label(line, f"{file}, line {number}"))
        self._bad_labels.check("lines")
        if not rows:
            raise BadData(f"{file} has no line that can be used.")
        return tuple(rows)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        train: set[str] = set()
        for category in self.categories:
            good = [path for path, p, c in self._labels if c == category and p < self.threshold]
            train |= layout.hold_out(good, self.train_share, self.seed)
        return tuple(
            Sample(f"{c}/{path}", c, "train" if path in train else "test", self._kind(p), path)
            for path, p, c in self._labels
        )

    def _kind(self, probability: float) -> str:
        if probability < self.threshold:
            return "good"
        return "defective" if probability == 1 else "probably_defective" if probability >= 0.5 else "possibly_defective"


def _label(line: str, where: str) -> tuple[str, float, str]:
    """Return path, defect probability and type of a line."""
    try:
        path, text, category = line.split()
        probability = float(text)
    except ValueError as error:
        raise BadData(f"{where} ({line[:60]!r}) is not `PATH PROBABILITY TYPE`.") from error
    if not 0 <= probability <= 1:
        raise BadData(f"{where} ({line[:60]!r}) has a probability that is not between 0 and 1.")
    return path, probability, category


def _installed() -> Path:
    """Return the folder of the package's data, without importing the package."""
    spec = importlib.util.find_spec("elpv_dataset")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise Missing("ELPV comes with the package elpv-dataset: pip install 'iadbe[elpv]'")
    return Path(places[0]) / "data"
