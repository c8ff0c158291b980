"""Semi-supervised: all normal training images and a few labelled defects.

Paper: Xie et al., "IM-IAD", 2301.13359: n labelled defective images of the test split. Pang et al., "DevNet",
    2108.00462, and Ding et al., "DRA", CVPR 2022, 2203.14506: of all kinds, or ("hard") of one kind that is not tested.
Differs:
    * At most ``cap`` of a category's defects are labelled.
    * A category with few defects does not lower ``n`` for the others. In the authors' code it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, share_of, training_images, with_true_labels, without
from iadbe.types import Sample, Step


@dataclass(frozen=True)
class Semi(Setting):
    """Fit on all normal images and ``n`` labelled defective ones, test on the rest.

    Args:
        n: number of labelled defective images
        overlap: keep the labelled images in the test split
        hard: label defects of one random kind only, and leave that kind out of the test
        cap: largest share of a category's defective test images that may be labelled
    """

    ranges = {"n": (1, 1000)}  # in requests to a server

    gives = frozenset({"labels"})

    n: int = 10
    overlap: bool = False
    hard: bool = False
    cap: float = 0.75

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 < self.cap <= 1:
            raise BadConfig(f"semi.n is at least 1 and semi.cap above 0 and up to 1, not {self.n} and {self.cap}.")
        if self.hard and self.overlap:
            raise BadConfig("semi.hard takes a kind of defect out of the test, so semi.overlap cannot leave it in.")

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        defects = index.anomalies(task)
        excluded: tuple[Sample, ...] = ()
        if self.hard:
            kinds = sorted({s.defect for s in defects})
            if len(kinds) < 2:
                raise BadConfig(f"semi.hard needs two kinds of defect, and {task} has {len(kinds)}.")
            kind = rng.choice(kinds)
            defects = excluded = tuple(s for s in defects if s.defect == kind)
        count = min(self.n, len(defects) if self.hard else share_of(self.cap, len(defects)))
        if count < 1:
            raise BadConfig(f"{task} has {len(defects)} defective test images: too few to label any of them.")
        labelled = rng.sample(defects, count)
        test = index.test(task) if self.overlap else without(index.test(task), excluded or labelled)
        return (Step((training_images(index.train(task)) + with_true_labels(labelled),), {task: test}),)
