"""A training loop is a for loop in the detector; this generator hides shuffling, progress and the time limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Augment, Batch, Images


class Federated:
    """What is different about training when it is one client's turn in one round."""

    def __init__(self, portion: float = 1.0, proximal: float = 0.0) -> None:
        """Say how.

        Args:
            portion: of the epochs that are trained in this round, at least one epoch
            proximal: FedProx's mu, with which parameters are pulled towards their values at the first step
        """
        self.portion, self.proximal = portion, proximal
        self._start: dict[Tensor, Tensor] = {}

    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Add to the gradients that of ``proximal / 2`` times the squared distance from where the round began."""
        if not self.proximal:
            return
        for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            value = parameter.detach()
            parameter.grad.add_(value - self._start.setdefault(parameter, value.clone()), alpha=self.proximal)


_federated: ContextVar[Federated] = ContextVar("federated", default=Federated())  # noqa: B039  (it holds no state)


@contextmanager
def federated(portion: float, proximal: float) -> Iterator[None]:
    """Let training in the block be one client's turn."""
    token = _federated.set(Federated(portion, proximal))
    try:
        yield
    finally:
        _federated.reset(token)


def loop(
    train: Images, *, epochs: int, batch: int, rng: np.random.Generator, augment: Augment | None = None
) -> Iterator[Batch]:
    """Yield shuffled batches for ``epochs`` epochs, or until the run's time budget is spent."""
    epochs = max(1, round(epochs * _federated.get().portion))
    per_epoch = -(-len(train) // batch)
    for epoch in range(epochs):
        for number, shown in enumerate(train.batches(batch, rng, augment)):
            if progress.time_is_up():
                return
            progress.report("fit", epoch * per_epoch + number, epochs * per_epoch)
            yield shown
    progress.report("fit", epochs * per_epoch, epochs * per_epoch)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, norm: float = math.inf) -> float:
    """Take one optimisation step and return the loss; the progress display shows it.

    The gradient, over all parameters, is shortened to ``norm`` where it is longer.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    _federated.get().pull(optimizer)  # a part of the loss, and so of the gradient that is shortened
    if norm < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)
    optimizer.step()
    value = float(loss.detach())
    progress.loss(value)
    return value


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Let everything in the block that asks torch's global generator (layers' initial weights) follow from ``rng``."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(rng.integers(2**63)))
        yield
