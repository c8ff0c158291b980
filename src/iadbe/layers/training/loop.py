"""Batches of a training loop, with shuffling, progress and the time limit; and one optimisation step.

Paper: Li et al., "Federated Optimization in Heterogeneous Networks" (FedProx), MLSys 2020, 1812.06127, equation 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Augment, Batch, Images


class Federated:
    """How a client trains in one round of federated learning."""

    def __init__(self, portion: float = 1.0, proximal: float = 0.0) -> None:
        """Choose.

        Args:
            portion: share of the epochs in this round; at least one epoch is trained
            proximal: weight μ of FedProx's proximal term
        """
        self.portion, self.proximal = portion, proximal
        self._start: dict[Tensor, Tensor] = {}

    def add_proximal_gradient(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the gradient of μ/2 ‖w - w₀‖², with w₀ the parameters at the first step of the round."""
        if not self.proximal:
            return
        for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            value = parameter.detach()
            parameter.grad.add_(value - self._start.setdefault(parameter, value.clone()), alpha=self.proximal)


_federated: ContextVar[Federated] = ContextVar("federated", default=Federated())  # noqa: B039  (it holds no state)


@contextmanager
def federated(portion: float, proximal: float) -> Iterator[None]:
    """Make training in the ``with`` block that of one client in one round."""
    token = _federated.set(Federated(portion, proximal))
    try:
        yield
    finally:
        _federated.reset(token)


class Stateful(Protocol):
    """What an interrupted loop continues from: optimizers, schedules, modules and averages of weights are such."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, of tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take the state."""


def loop(
    train: Images,
    *,
    batch: int,
    rng: np.random.Generator,
    epochs: int | None = None,
    steps: int | None = None,
    augment: Augment | None = None,
    state: Sequence[Stateful | torch.Generator] = (),
) -> Iterator[Batch]:
    """Yield shuffled batches for ``epochs`` epochs or ``steps`` batches, or until the run's time budget is spent.

    Args:
        train: training images
        batch: images per batch; the last batch of an epoch may be smaller
        rng: draws the order and the augmentation
        epochs: how often every image comes; in a federated round a portion of it
        steps: how many batches are yielded in all, instead of ``epochs``; likewise a portion
        augment: changes the images of a batch; augmented batches have no keys, so their features are never stored
        state: what the loop's body changes beside the detector's own parameters and buffers: optimizers, schedules,
            further networks, generators
    """
    portion = _federated.get().portion
    if steps is not None and epochs is None:
        planned = max(1, round(steps * portion))
    elif epochs is not None and steps is None:
        planned = max(1, round(epochs * portion)) * -(-len(train) // batch)
    else:
        raise TypeError("a loop takes either epochs or steps.")
    done, stopped = 0, False
    try:
        while done < planned:
            for shown in itertools.islice(train.batches(batch, rng, augment), planned - done):
                if stopped := progress.time_is_up():
                    return
                progress.report("fit", done, planned)
                done += 1
                yield shown
        progress.report("fit", planned, planned)
    finally:  # a detector that stops early by its own rule has done all that it planned
        progress.training_steps(done, planned if stopped else done)


def step(optimizer: torch.optim.Optimizer, loss: Tensor, norm: float = math.inf) -> float:
    """Take one optimisation step and return the loss; the progress display shows it.

    Args:
        optimizer: of the parameters that are trained
        loss: a scalar ()
        norm: gradients are clipped to this norm, over all parameters together, after FedProx's proximal term
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    _federated.get().add_proximal_gradient(optimizer)  # it is part of the loss, so it is clipped with the rest
    if norm < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)
    optimizer.step()
    value = float(loss.detach())
    progress.loss(value)
    return value


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Seed torch's global generator (initial weights, dropout) from ``rng`` in the ``with`` block, and restore it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(rng.integers(2**63)))
        yield
