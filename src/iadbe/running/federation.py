"""Clients that keep their images to themselves: what each has learnt becomes one detector.

Banks and statistics are merged by the detector, which is exact or nearly so, in one round. Parameters are averaged:
in every round each client trains on from where all of them are, and the mean, or the median, of their parameters is
where the next round begins. Simulated in one process; a client's random numbers depend on the round and on which client
it is, never on who came before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Images
from iadbe.detector import Detector
from iadbe.errors import BadDetector
from iadbe.layers.training.loop import federated
from iadbe.types import Step

Limited = Callable[[float], AbstractContextManager[Any]]  # gives what is done in it a share of the time budget
Ask = Callable[[Detector, int], Sequence[Detector]]  # from the common detector and the turn to what each client makes


def learn(
    detector: Detector,
    clients: Sequence[Images],
    step: Step,
    rng: np.random.Generator,
    limited: Limited = lambda share: nullcontext(),
    ask: Ask | None = None,
) -> None:
    """Let a detector become what the clients learn together. Each has the whole time budget, shared by its rounds.

    ``ask`` lets the clients work elsewhere; by default they take turns here.
    """
    merging = _merges(detector)
    rounds = 1 if merging else step.rounds
    source = seed_of(rng)

    def here(common: Detector, turn: int) -> list[Detector]:
        learners = []
        for number, images in enumerate(clients):
            progress.report("round", turn * len(clients) + number, rounds * len(clients))
            with limited(1 / rounds):
                learners.append(turn_of(common, images, step, source, turn, number))
        return learners

    weights = [len(images.normal()) for images in clients]
    for turn in range(rounds):
        learners = (ask or here)(detector, turn)
        if merging:
            detector.merge(learners)
        else:
            detector.load_state_dict(aggregated([o.state_dict() for o in learners], weights, step.aggregate))
    detector.eval()


def _merges(detector: Detector) -> bool:
    """Say whether a detector is merged; else its parameters are averaged."""
    if not detector.can & {"merge", "continue"}:
        raise BadDetector(f"{type(detector).__name__} can neither merge nor continue, which federated learning takes.")
    return "merge" in detector.can


def turn_of(
    common: Detector, images: Images, step: Step, source: np.random.SeedSequence, turn: int, client: int
) -> Detector:
    """Return what one client makes of the common detector in one turn; that one stays as it is."""
    learner, rng = copy.deepcopy(common), generator_of(source, turn, client)
    if _merges(learner):
        learner.fit(images, rng)
    else:
        with federated(1 / step.rounds, step.proximal):
            learner.update(images, rng)
    return learner.eval()


def seed_of(rng: np.random.Generator) -> np.random.SeedSequence:
    """Return what a generator was seeded with, however much was drawn from it since."""
    source = rng.bit_generator.seed_seq
    assert isinstance(source, np.random.SeedSequence)
    return source


def generator_of(source: np.random.SeedSequence, turn: int, client: int) -> np.random.Generator:
    """Return the generator of a client's turn: its entropy is the run's, so that what all choose once is the same."""
    return np.random.default_rng(np.random.SeedSequence(source.entropy, spawn_key=(*source.spawn_key, turn, client)))


@torch.no_grad()
def aggregated(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float], how: str) -> dict[str, Tensor]:
    """Return one state of many: the mean by ``weights``, or the "median" of each number, which asks for no weights.

    What is the same everywhere stays as it is, to the bit; whole numbers, such as counters, are the first one's.
    """
    found = {}
    for name, first in states[0].items():
        values = [state[name] for state in states]
        if not first.is_floating_point() or all(torch.equal(value, first) for value in values[1:]):
            found[name] = first
            continue
        if {value.shape for value in values} != {first.shape}:
            raise BadDetector(f"{name} has another shape at every client, so it cannot be averaged, only merged.")
        stacked = torch.stack(values).double()
        if how == "median":
            ordered = stacked.sort(0).values
            one = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
        else:
            share = stacked.new_tensor([w / sum(weights) for w in weights])
            one = torch.tensordot(share, stacked, 1)
        found[name] = one.to(first.dtype)
    return found
