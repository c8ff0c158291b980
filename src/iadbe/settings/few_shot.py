"""Vanilla with only ``k`` good training images, drawn once per run.

Paper: Xie et al., "IM-IAD", 2301.13359, section III: k in {1, 2, 4, 8}, each image perhaps with augmented copies; and
    Huang et al., "RegAD", ECCV 2022, 2207.07361, where all images of the other categories are learnt from before.
Differs: copies are evenly spaced, none equal to the image itself (the authors' code turns the last one by 360°); each
    kind of augmentation makes its own copies, from the image as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.data.transforms import changed
from iadbe.dataset import Index
from iadbe.errors import BadConfig, did_you_mean
from iadbe.setting import Setting, training_images
from iadbe.types import Sample, Step

FLIPS = (1, 2, 3)  # left and right, top and bottom, both: there are no more
JITTER = (0.5, 1.5)  # factors of brightness and contrast
AUGMENTATIONS = ("rotation", "scale", "translation", "flip", "colour", "perspective")


@dataclass(frozen=True)
class FewShot(Setting):
    """Fit on ``k`` good images, test on the whole test split.

    Args:
        k: good training images
        augment: rotation, scale, translation, flip, colour or perspective, or several: altered copies of each image
        copies: altered copies of an image by each kind of augmentation; of flips there are at most three
        others: learn from the good images of all other categories first
    """

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
        """Return meta-learning where other categories are learnt from first."""
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
            raise BadConfig(f"few_shot.others needs other categories than {task} to learn from, and there are none.")
        return Step((training_images(before),), {}), step

    def _copies(self, shot: Sample) -> list[Sample]:
        return [changed(shot, kind, value) for kind in self.augment for value in spaced(kind, self.copies)]


def spaced(kind: str, copies: int) -> list[float]:
    """Return the values of ``copies`` changes of a kind, evenly spaced over its range, none of which changes nothing.

    Rotations lie on the circle, scales end at 0.5, shifts and perspectives at 0.5; half of the factors of brightness
    and contrast lie from 0.5 to below 1, the rest from above 1 to 1.5.
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
