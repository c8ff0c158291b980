"""KolektorSDD: surfaces of 50 commutators, eight images each, some with a crack: ``kos01/Part0.jpg`` and its mask.

Paper: Tabernik et al., "Segmentation-based deep-learning approach for surface-defect detection", Journal of Intelligent
    Manufacturing 31, 2020.
Differs:
    * The official folds are for supervised training. Here a seeded share of the commutators is trained on, with their
      normal images. All normal images of the others and every defective image are tested.
    * So no commutator has normal images in both splits. A random split of the images, as in anomalib, does not ensure
      that.
    * Only the masks show which images are normal, so they are read once.
Numbers: 399 images of 50 commutators, 52 of them defective.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import layout
from iadbe.files.layout import LayoutMatch
from iadbe.files.nonempty_masks import nonempty_masks
from iadbe.types import Sample

CATEGORY = "commutator"


class KolektorSDD(Dataset):
    """One category, one kind of defect, a seeded split by commutator."""

    title: ClassVar[str] = "KolektorSDD"
    year: ClassVar[int] = 2019
    paper: ClassVar[str] = 'Tabernik et al., "Segmentation-based deep-learning approach", JIM 31, 2020'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.vicos.si/resources/kolektorsdd"
    layout_description: ClassVar[str] = "kos01/Part0.jpg with Part0_label.bmp (KolektorSDD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://go.vicos.si/kolektorsdd",
            "file": "KolektorSDD.zip",
            "sha256": "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
        },
    )
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "commutator": (347, 52)
    }  # normal, defective: there is no official one-class split
    labels_in_masks: ClassVar[bool] = True

    def __init__(self, root: str = "", train_share: float = 0.8, seed: int = 0) -> None:
        """Index a folder.

        Args:
            root: folder with kos01 to kos50
            train_share: share of the commutators whose normal images are trained on
            seed: of the random split
        """
        super().__init__(root)
        self.train_share = layout.check_share("kolektor_sdd.train_share", train_share)
        self.seed = seed
        if not _items(self.root):
            raise BadData(
                f"{self.root} does not hold kos01/Part0.jpg with kos01/Part0_label.bmp, but "
                f"{layout.contents(self.root)}. Give the folder of kos01."
            )

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        there = _items(folder)
        return LayoutMatch(f"KolektorSDD ({len(there)} commutators)") if there else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The one category, commutator."""
        return (CATEGORY,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, commutator by commutator."""
        return self._samples

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        items = _items(self.root)
        pairs = [pair for item in items for pair in self._parts(item)]
        defective = nonempty_masks(self.root, [mask for _, mask in pairs])
        train = layout.hold_out(items, self.train_share, self.seed)
        found = []
        for path, mask in pairs:
            bad = mask in defective
            split = "train" if not bad and path.partition("/")[0] in train else "test"
            kind = "defect" if bad else "good"
            item = path.partition("/")[0]
            found.append(Sample(f"{CATEGORY}/{path}", CATEGORY, split, kind, path, mask if bad else None, group=item))
        return tuple(found)

    def _parts(self, item: str) -> list[tuple[str, str]]:
        """Return the images of one commutator with their masks."""
        masks = layout.masks_by_stem(self.root / item)
        pairs = []
        for name in layout.images(self.root / item, (".jpg", ".jpeg")):
            if (mask := masks.get(Path(name).stem)) in (None, name):
                raise BadData(f"{self.root / item / name} has no mask, so its label is not known.")
            pairs.append((f"{item}/{name}", f"{item}/{mask}"))
        return pairs


def _items(folder: Path) -> tuple[str, ...]:
    return tuple(n for n in layout.subfolders(folder) if n.startswith("kos") and (folder / n / "Part0.jpg").is_file())
