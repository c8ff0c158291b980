"""Robustness to corruptions: train as vanilla, test on corrupted copies of the test images as well.

Paper: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
    2019, 1903.12261: five strengths of brightness, contrast, Gaussian blur, Gaussian noise and JPEG, their values.
Differs:
    * Blur and the grain of noise are measured in 256ths of the image's shorter side (theirs: pixels at 224).
    * Rotations by 2 to 45 degrees are added. Masks rotate with their images.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.data.transforms import with_transform
from iadbe.dataset import Index
from iadbe.errors import BadConfig, did_you_mean
from iadbe.setting import Setting, training_images
from iadbe.types import Step

STRENGTHS = {
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor of the difference from the mean
    "blur": (1, 2, 3, 4, 6),  # standard deviation in 256ths of the shorter side
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, share of the range
    "jpeg": (25, 18, 15, 10, 7),  # quality
    "rotation": (2, 5, 10, 20, 45),  # degrees
}


@dataclass(frozen=True)
class Shifted(Setting):
    """Fit as vanilla; test on the test split, and again for each corruption at each strength.

    Args:
        kinds: corruptions, of brightness, contrast, blur, noise, jpeg, rotation
        strengths: from 1 to 5
    """

    kinds: tuple[str, ...] = ("brightness", "contrast", "blur", "noise", "jpeg", "rotation")
    strengths: tuple[int, ...] = (1, 2, 3, 4, 5)

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in STRENGTHS:
                hint = did_you_mean(kind, STRENGTHS)
                raise BadConfig(f"shifted.kinds has no {kind!r}.{hint} It has: {', '.join(STRENGTHS)}.")
        if not set(self.strengths) <= {1, 2, 3, 4, 5}:
            raise BadConfig(f"shifted.strengths are whole numbers from 1 to 5, not {list(self.strengths)}.")

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        test = index.test(task)
        tests = {task: test}
        for kind in self.kinds:
            for strength in self.strengths:
                value = STRENGTHS[kind][strength - 1]
                tests[f"{task}, {kind} {strength}"] = tuple(with_transform(s, kind, value) for s in test)
        return (Step((training_images(index.train(task)),), tests),)


def corruption_of(test: str) -> tuple[str, str, int] | None:
    """Parse a test's name into (category, corruption, strength); None for a test without corruption."""
    category, _, corruption = test.rpartition(", ")
    kind, _, strength = corruption.partition(" ")
    return (category, kind, int(strength)) if category and kind in STRENGTHS and strength.isdigit() else None
