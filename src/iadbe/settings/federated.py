"""Federated learning: clients train on their own images and share only their parameters.

Paper: McMahan et al., "FedAvg", AISTATS 2017, 1602.05629; Li et al., "FedProx", MLSys 2020, 1812.06127; Yin et al.,
    "Byzantine-Robust Distributed Learning" (median), ICML 2018, 1803.01498; Hsu et al., 1909.06335 (Dirichlet split).
Differs:
    * Memory banks and statistics are merged in one round, whatever ``aggregate`` is, because a mean of memory banks has
      no meaning.
    * The detector's epochs are divided among the rounds, so more rounds are not more training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from random import Random
from typing import Literal

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, categories_of, joint_task, training_images
from iadbe.types import Sample, Step


@dataclass(frozen=True)
class Federated(Setting):
    """Split the normal training images among clients, train one detector in rounds, test it.

    Args:
        clients: number of clients; each gets at least one image
        rounds: number of times that parameters are aggregated
        split: iid, equally many images per client, or dirichlet, uneven shares of each category
        alpha: concentration α of the Dirichlet distribution; smaller is more uneven
        aggregate: fedavg, the mean weighted by images; fedprox, the same with a proximal term; or median, of each
            parameter
        mu: weight μ of the proximal term of fedprox
        joint: one task for all categories instead of one for each
    """

    ranges = {"clients": (1, 100), "rounds": (1, 1000)}  # in requests to a server

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
        """Return one task per category, or one of all."""
        return (joint_task(categories, present),) if self.joint else tuple(categories)

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        categories = categories_of(task, index)
        per_client: list[list[Sample]] = [[] for _ in range(self.clients)]
        for category in categories:
            images = list(index.train(category))
            rng.shuffle(images)
            for client, part in zip(per_client, self._partition(images, per_client, rng), strict=True):
                client += part
        if sum(map(len, per_client)) < self.clients:
            raise BadConfig(
                f"federated.clients is {self.clients}, but {task} has {sum(map(len, per_client))} good training images."
            )
        while not all(per_client):  # every client needs an image
            min(per_client, key=len).append(max(per_client, key=len).pop())
        tests = {category: index.test(category) for category in categories}
        aggregate = "median" if self.aggregate == "median" else "mean"
        proximal = self.mu if self.aggregate == "fedprox" else 0.0
        return (Step(tuple(training_images(client) for client in per_client), tests, self.rounds, aggregate, proximal),)

    def _partition(self, images: list[Sample], per_client: list[list[Sample]], rng: Random) -> list[list[Sample]]:
        """Partition the images of a category, one part per client."""
        if self.split == "iid":
            first = (
                sum(map(len, per_client)) % self.clients
            )  # start where the last category ended, to spread the remainders
            return [images[(i - first) % self.clients :: self.clients] for i in range(self.clients)]
        shares = [rng.gammavariate(self.alpha, 1) for _ in per_client]
        if not (total := sum(shares)):  # a tiny alpha: all shares underflow to 0, so one client gets everything
            shares[rng.randrange(self.clients)] = total = 1.0
        cuts = [0, *(round(reached / total * len(images)) for reached in accumulate(shares))]
        return [images[start:stop] for start, stop in pairwise(cuts)]
