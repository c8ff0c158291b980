"""Federated learning: clients keep their images and share learnt state, which is merged into one detector.

Memory banks and statistics are merged by the detector in one round, exactly or nearly so. Parameters are averaged
(FedAvg): in every round each client continues from the common parameters, and the mean or the median of the clients'
parameters starts the next round. All clients are simulated in one process. A client's random numbers depend on the
round and on its own number only.
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
from iadbe.layers.training.resume import part, round_ended, rounds_done
from iadbe.types import Step

BudgetShare = Callable[[float], AbstractContextManager[Any]]  # gives its block a share of the time budget
TrainClients = Callable[[Detector, int], Sequence[Detector]]  # (common detector, round) to each client's


def learn(
    detector: Detector,
    clients: Sequence[Images],
    step: Step,
    rng: np.random.Generator,
    limited: BudgetShare = lambda share: nullcontext(),
    train_clients: TrainClients | None = None,
) -> None:
    """Train a detector on all clients. Each client has the whole time budget, divided among its rounds.

    ``train_clients`` trains the clients elsewhere, such as in Flower; by default they are trained here in turn.
    """
    merging = _merges(detector)
    rounds = 1 if merging else step.rounds
    source = seed_sequence(rng)

    def train_locally(common: Detector, round_index: int) -> list[Detector]:
        learners = []
        for number, images in enumerate(clients):
            progress.report("round", round_index * len(clients) + number, rounds * len(clients))
            with limited(1 / rounds):
                learners.append(client_update(common, images, step, source, round_index, number))
        return learners

    weights = [len(images.normal()) for images in clients]
    for round_index in range(rounds_done(rng), rounds):
        learners = (train_clients or train_locally)(detector, round_index)
        if merging:
            detector.merge(learners)
        else:
            detector.load_state_dict(aggregated([o.state_dict() for o in learners], weights, step.aggregate))
            round_ended(rng, round_index + 1)
    detector.eval()


def _merges(detector: Detector) -> bool:
    """Return whether the detector merges its state; otherwise its parameters are averaged."""
    if not detector.can & {"merge", "continue"}:
        raise BadDetector(f"{type(detector).__name__} can neither merge nor continue, which federated learning takes.")
    return "merge" in detector.can


def client_update(
    common: Detector, images: Images, step: Step, source: np.random.SeedSequence, round_index: int, client: int
) -> Detector:
    """Return a copy of the common detector, trained by one client in one round."""
    learner, rng = copy.deepcopy(common), client_generator(source, round_index, client)
    with part(learner, f"round{round_index}-client{client}"):
        if _merges(learner):
            learner.fit(images, rng)
        else:
            with federated(1 / step.rounds, step.proximal):
                learner.update(images, rng)
    return learner.eval()


def seed_sequence(rng: np.random.Generator) -> np.random.SeedSequence:
    """Return the seed sequence of a generator."""
    source = rng.bit_generator.seed_seq
    assert isinstance(source, np.random.SeedSequence)
    return source


def client_generator(source: np.random.SeedSequence, round_index: int, client: int) -> np.random.Generator:
    """Return a client's generator for one round. Its entropy is the run's, so that one-time choices agree."""
    return np.random.default_rng(
        np.random.SeedSequence(source.entropy, spawn_key=(*source.spawn_key, round_index, client))
    )


@torch.no_grad()
def aggregated(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float], how: str) -> dict[str, Tensor]:
    """Return the mean of states by ``weights``, or the unweighted "median" of each number.

    Tensors that are equal everywhere stay bit-identical. Integers, such as counters, are taken from the first state.
    """
    found = {}
    for name, first in states[0].items():
        values = [state[name] for state in states]
        if not first.is_floating_point() or all(torch.equal(value, first) for value in values[1:]):
            found[name] = first
            continue
        if {value.shape for value in values} != {first.shape}:
            raise BadDetector(f"{name} has another shape at every client, so it cannot be averaged, only merged.")
        stacked = torch.stack(values)
        stacked = (stacked.cpu() if stacked.device.type == "mps" else stacked).double()  # mps has no float64
        if how == "median":
            ordered = stacked.sort(0).values
            one = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
        else:
            share = stacked.new_tensor([w / sum(weights) for w in weights])
            one = torch.tensordot(share, stacked, 1)
        found[name] = one.to(first.dtype).to(first.device)
    return found
