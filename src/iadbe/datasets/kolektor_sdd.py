"""KolektorSDD: the surfaces of 50 commutators, eight parts each, some with a crack: ``kos01/Part0.jpg`` and its mask.

Paper: Tabernik et al., "Segmentation-based deep-learning approach for surface-defect detection", Journal of Intelligent
    Manufacturing 31, 2020.
Differs: the official folds are for supervised training. Here a seeded share of the commutators is trained on, with
    their good parts; all good parts of the others and every defective part are tested. So no commutator has good parts
    on both sides, which a random split of the images (as in anomalib) does not promise. Which parts are good is told
    by their masks alone, which are therefore read once.
Numbers: 399 images of 50 commutators, 52 of them defective.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import layout
from iadbe.files.layout import Recognised
from iadbe.files.marked import marked
from iadbe.types import Sample

CATEGORY = "commutator"


class KolektorSDD(Dataset):
    """One category, one kind of defect, a seeded split by commutator."""

    title: ClassVar[str] = "KolektorSDD"
    year: ClassVar[int] = 2019
    paper: ClassVar[str] = 'Tabernik et al., "Segmentation-based deep-learning approach", JIM 31, 2020'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.vicos.si/resources/kolektorsdd"
    looks_like: ClassVar[str] = "kos01/Part0.jpg with Part0_label.bmp (KolektorSDD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://go.vicos.si/kolektorsdd",
            "file": "KolektorSDD.zip",
            "sha256": "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
        },
    )
    counts: ClassVar[dict[str, tuple[int, ...]]] = {"commutator": (347, 52)}  # good, defective: no split of this kind
    labels_in_masks: ClassVar[bool] = True

    def __init__(self, root: str = "", train_share: float = 0.8, seed: int = 0) -> None:
        """Look at a folder.

        Args:
            root: the folder that holds kos01 to kos50
            train_share: the share of the commutators whose good parts are trained on
            seed: decides which commutators these are
        """
        super().__init__(root)
        self.train_share = layout.check_share("kolektor_sdd.train_share", train_share)
        self.seed = seed
        if not _items(self.root):
            raise BadData(
                f"{self.root} does not hold kos01/Part0.jpg with kos01/Part0_label.bmp, but "
                f"{layout.found_in(self.root)}. Give the folder of kos01."
            )

    @classmethod
    def recognise(cls, folder: Path) -> Recognised | None:
        """Say whether a folder has this layout."""
        there = _items(folder)
        return Recognised(f"KolektorSDD ({len(there)} commutators)") if there else None

    @property
    def categories(self) -> tuple[str, ...]:
        """Commutators, and nothing else."""
        return (CATEGORY,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, commutator by commutator."""
        return self._samples

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        items = _items(self.root)
        pairs = [pair for item in items for pair in self._parts(item)]
        defective = marked(self.root, [mask for _, mask in pairs])
        train = layout.held_out(items, self.train_share, self.seed)
        found = []
        for path, mask in pairs:
            bad = mask in defective
            split = "train" if not bad and path.partition("/")[0] in train else "test"
            kind = "defect" if bad else "good"
            found.append(Sample(f"{CATEGORY}/{path}", CATEGORY, split, kind, path, mask if bad else None))
        return tuple(found)

    def _parts(self, item: str) -> list[tuple[str, str]]:
        """Return the images of one commutator with their masks."""
        masks = layout.masks(self.root / item)
        pairs = []
        for name in layout.images(self.root / item, (".jpg", ".jpeg")):
            if (mask := masks.get(Path(name).stem)) in (None, name):
                raise BadData(f"{self.root / item / name} has no mask, so it is not known whether it is good.")
            pairs.append((f"{item}/{name}", f"{item}/{mask}"))
        return pairs


def _items(folder: Path) -> tuple[str, ...]:
    return tuple(n for n in layout.subfolders(folder) if n.startswith("kos") and (folder / n / "Part0.jpg").is_file())
