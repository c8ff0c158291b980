"""Several clients keep their images to themselves and share only what they have learnt.

Paper: McMahan et al., "FedAvg", AISTATS 2017, 1602.05629; Li et al., "FedProx", MLSys 2020, 1812.06127; Yin et al.,
    "Byzantine-Robust Distributed Learning" (median), ICML 2018, 1803.01498; Hsu et al., 1909.06335 (Dirichlet split).
Differs: memory banks and statistics are merged, in one round, whatever ``aggregate`` says, since a mean of banks means
    nothing; the detector's epochs are shared out among the rounds, so that more rounds are not more training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from random import Random
from typing import Literal

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, categories_of, together, training_images
from iadbe.types import Sample, Step


@dataclass(frozen=True)
class Federated(Setting):
    """Deal the good training images out to clients, which learn together; test the one detector they arrive at.

    Args:
        clients: how many there are; each gets at least one image
        rounds: how often parameters are averaged
        split: iid, equally many images to each client, or dirichlet, uneven shares of each category
        alpha: of the Dirichlet distribution; the smaller, the more uneven
        aggregate: fedavg, the mean weighted by images, fedprox, the same with a pull towards the round's start, or
            median, of each parameter
        mu: strength of the pull of fedprox
        joint: one task for all categories instead of one for each
    """

    demands = frozenset({"merge or continue"})

    clients: int = 4
    rounds: int = 10
    split: Literal["iid", "dirichlet"] = "iid"
    alpha: float = 0.5
    aggregate: Literal["fedavg", "fedprox", "median"] = "fedavg"
    mu: float = 0.01
    joint: bool = False

    def __post_init__(self) -> None:
        if self.clients < 2 or self.rounds < 1:
            raise BadConfig(
                f"federated.clients is at least 2 and federated.rounds at least 1, not {self.clients} and "
                f"{self.rounds}."
            )
        if self.alpha <= 0 or self.mu < 0:
            raise BadConfig(f"federated.alpha is above 0 and federated.mu at least 0, not {self.alpha} and {self.mu}.")
        if self.split not in ("iid", "dirichlet"):
            raise BadConfig(f"federated.split is iid or dirichlet, not {self.split!r}.")
        if self.aggregate not in ("fedavg", "fedprox", "median"):
            raise BadConfig(f"federated.aggregate is fedavg, fedprox or median, not {self.aggregate!r}.")

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Name one task per category, or one of all."""
        return (together(categories, present),) if self.joint else tuple(categories)

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        categories = categories_of(task, index)
        hands: list[list[Sample]] = [[] for _ in range(self.clients)]
        for category in categories:
            images = list(index.train(category))
            rng.shuffle(images)
            for hand, part in zip(hands, self._parts(images, hands, rng), strict=True):
                hand += part
        if sum(map(len, hands)) < self.clients:
            raise BadConfig(
                f"federated.clients is {self.clients}, but {task} has {sum(map(len, hands))} good training images."
            )
        while not all(hands):  # a client without any image is none
            min(hands, key=len).append(max(hands, key=len).pop())
        tests = {category: index.test(category) for category in categories}
        aggregate = "median" if self.aggregate == "median" else "mean"
        pull = self.mu if self.aggregate == "fedprox" else 0.0
        return (Step(tuple(training_images(hand) for hand in hands), tests, self.rounds, aggregate, pull),)

    def _parts(self, images: list[Sample], hands: list[list[Sample]], rng: Random) -> list[list[Sample]]:
        """Cut a category's images into one part for each client."""
        if self.split == "iid":
            first = sum(map(len, hands)) % self.clients  # who is next, so that no client gets the odd one every time
            return [images[(i - first) % self.clients :: self.clients] for i in range(self.clients)]
        shares = [rng.gammavariate(self.alpha, 1) for _ in hands]
        if not (whole := sum(shares)):  # so small an alpha that all of them were rounded to nothing: one has it all
            shares[rng.randrange(self.clients)] = whole = 1.0
        cuts = [0, *(round(reached / whole * len(images)) for reached in accumulate(shares))]
        return [images[start:stop] for start, stop in pairwise(cuts)]
