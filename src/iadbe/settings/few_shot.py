"""Few-shot: fit on ``k`` normal training images, drawn once per run; test as vanilla.

Paper: Xie et al., "IM-IAD", 2301.13359, section III: k in {1, 2, 4, 8}, with or without augmented copies;
    Huang et al., "RegAD", ECCV 2022, 2207.07361: training on all other categories first.
Differs:
    * Copies are evenly spaced, and none equals the image itself (the authors' code rotates the last one by 360°).
    * Each kind of augmentation makes its own copies of the original image.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.data.transforms import with_transform
from iadbe.dataset import Index
from iadbe.errors import BadConfig, did_you_mean
from iadbe.setting import Setting, training_images
from iadbe.types import Sample, Step

FLIPS = (1, 2, 3)  # horizontal, vertical, both
JITTER = (0.5, 1.5)  # factors of brightness and contrast
AUGMENTATIONS = ("rotation", "scale", "translation", "flip", "colour", "perspective")


@dataclass(frozen=True)
class FewShot(Setting):
    """Fit on ``k`` normal images, test on the whole test split.

    Args:
        k: number of normal training images
        augment: rotation, scale, translation, flip, colour, perspective, or several: adds copies of each image
        copies: copies of an image per kind of augmentation; at most three flips
        others: train on the normal images of all other categories first
    """

    ranges = {"k": (1, 1000), "copies": (1, 100)}  # in requests to a server

    k: int = 4
    augment: tuple[str, ...] = ()
    copies: int = 4
    others: bool = False

    def __post_init__(self) -> None:
        for kind in self.augment:
            if kind not in AUGMENTATIONS:
                hint = did_you_mean(kind, AUGMENTATIONS)
                raise BadConfig(f"few_shot.augment has no {kind!r}.{hint} It has: {', '.join(AUGMENTATIONS)}.")
        if self.copies < 1:
            raise BadConfig(f"few_shot.copies is at least 1, not {self.copies}.")

    def demanded(self) -> frozenset[str]:
        """Add meta-learning where other categories are trained on first."""
        return self.demands | ({"meta-learning"} if self.others else set())

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        train = index.train(task)
        if not 1 <= self.k <= len(train):
            raise BadConfig(f"few_shot.k is {self.k}, but {task} has {len(train)} good training images.")
        shots = rng.sample(train, self.k)
        few = [copy for shot in shots for copy in (shot, *self._copies(shot))]
        step = Step((training_images(few),), {task: index.test(task)})
        if not self.others:
            return (step,)
        before = [s for category in index.categories if category != task for s in index.train(category)]
        if not before:
            raise BadConfig(f"few_shot.others needs other categories than {task} to train on, and there are none.")
        return Step((training_images(before),), {}), step

    def _copies(self, shot: Sample) -> list[Sample]:
        return [with_transform(shot, kind, value) for kind in self.augment for value in spaced(kind, self.copies)]


def spaced(kind: str, copies: int) -> list[float]:
    """Return ``copies`` values of a transform, evenly spaced over its range, without the identity.

    Rotations cover the circle. Scales, translations and perspectives end at 0.5. Of the brightness and contrast factors
    half lie in [0.5, 1), the rest in (1, 1.5].
    """
    steps = [(i + 1) / copies for i in range(copies)]
    if kind == "rotation":
        return [360 * (i + 1) / (copies + 1) for i in range(copies)]
    if kind == "scale":
        return [1 - step / 2 for step in steps]
    if kind == "flip":
        return list(FLIPS[:copies])
    if kind == "colour":
        low, high = JITTER
        darker, brighter = copies // 2, copies - copies // 2
        dark = [low + (1 - low) * i / darker for i in range(darker)]
        return dark + [1 + (high - 1) * (i + 1) / brighter for i in range(brighter)]
    return [step / 2 for step in steps]
