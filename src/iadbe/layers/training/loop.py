"""Batches of a training loop, with shuffling, progress and the time limit; and one optimisation step.

Paper: Li et al., "Federated Optimization in Heterogeneous Networks" (FedProx), MLSys 2020, 1812.06127, equation 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Augment, Batch, Images
from iadbe.layers.training.precision import current_arithmetic
from iadbe.layers.training.resume import LoopCheckpoint
from iadbe.layers.training.state import State

Order = Callable[[np.random.Generator], list[np.ndarray]]


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

    def remember(self, state: Sequence[State]) -> None:
        """Remember the parameters of the optimizers in ``state`` before an interrupted loop goes on with later ones."""
        if self.proximal:
            groups = (group for one in state if isinstance(one, torch.optim.Optimizer) for group in one.param_groups)
            for parameter in (p for group in groups for p in group["params"]):
                self._start.setdefault(parameter, parameter.detach().clone())

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


def loop(
    train: Images,
    *,
    batch: int,
    rng: np.random.Generator,
    epochs: int | None = None,
    steps: int | None = None,
    augment: Augment | None = None,
    state: Sequence[State] = (),
    order: Order | None = None,
) -> Iterator[Batch]:
    """Yield shuffled batches for ``epochs`` epochs or ``steps`` batches, or until the run's time budget is spent.

    Where the run keeps checkpoints (:mod:`iadbe.layers.training.resume`), a loop that was interrupted goes on from its
    last one. The body then sees the batches that are left, so it must not count them in a plain variable.

    Args:
        train: training images
        batch: images per batch; the last batch of an epoch may be smaller
        rng: draws the order and the augmentation
        epochs: how often every image comes; in a federated round a portion of it
        steps: how many batches are yielded in all, instead of ``epochs``; likewise a portion
        augment: changes the images of a batch; augmented batches have no keys, so their features are never stored
        state: what the loop's body changes beside the detector's own parameters and buffers: optimizers, schedules,
            further networks, generators of random numbers, and :class:`iadbe.layers.training.state.Variables`
        order: draws the indices of each batch of an epoch, instead of a shuffle; with ``steps`` and no ``augment``
    """
    if (steps is None) == (epochs is None) or (order is not None and (augment is not None or steps is None)):
        raise TypeError("a loop takes either epochs or steps, and with an order steps and no augmentation.")
    planned = _planned(-(-len(train) // batch), epochs, steps)
    _federated.get().remember(state)
    arithmetic, checkpoint, stopped, ended = current_arithmetic(), LoopCheckpoint(rng, state), False, False
    at = checkpoint.restored()
    if at.finished:
        return
    try:
        while at.done < planned:
            chunks, generator = at.drawn(rng, partial(_drawn, train, batch, order))
            for shown in train.read(chunks[at.step :][: planned - at.done], augment, generator):
                if stopped := progress.time_is_up():
                    break
                progress.report("fit", at.done, planned)
                at.done += 1
                with arithmetic.autocast():
                    yield shown
                at.step = (at.step + 1) % len(chunks)
                checkpoint.save_when_due(at, generator)
            if stopped:
                break
        else:
            progress.report("fit", planned, planned)
        _make_unfinished_steps()
        ended = True
    finally:  # a detector that stops early by its own rule has done all that it planned
        arithmetic.forget()
        progress.training_steps(at.done, planned if stopped else at.done)
        if ended:
            checkpoint.finish(at)


def _drawn(
    train: Images, batch: int, order: Order | None, rng: np.random.Generator
) -> tuple[list[np.ndarray], torch.Generator]:
    """Draw the batches of an epoch, and the generator of the augmentation."""
    return (order(rng), torch.Generator()) if order is not None else train.drawn(batch, rng)


def _planned(per_epoch: int, epochs: int | None, steps: int | None) -> int:
    """Return how many batches a loop yields, in a federated round its portion."""
    portion = _federated.get().portion
    return max(1, round((steps or 1) * portion)) if epochs is None else max(1, round(epochs * portion)) * per_epoch


def step(optimizer: torch.optim.Optimizer, loss: Tensor, norm: float = math.inf, shown: bool = True) -> float:
    """Take one optimisation step and return the loss; the progress display shows it.

    A run may choose that an optimizer steps only at every n-th call, with the mean gradient of n calls, and that
    gradients are computed in mixed precision (:mod:`iadbe.layers.training.precision`).

    Args:
        optimizer: of the parameters that are trained
        loss: a scalar ()
        norm: gradients are clipped to this norm, over all parameters together, after FedProx's proximal term
        shown: whether this loss is displayed; of adversaries that are trained in turn, one is
    """
    arithmetic = current_arithmetic()
    with arithmetic.full_precision():
        optimizer.zero_grad(set_to_none=True)
        arithmetic.scaler.scale(loss).backward()
        if arithmetic.is_due(optimizer, norm):
            _apply(optimizer, norm)
    value = float(loss.detach())
    if shown:
        progress.loss(value)
    return value


def _make_unfinished_steps() -> None:
    """Take the steps whose gradients are of fewer calls than the run accumulates."""
    arithmetic = current_arithmetic()
    with arithmetic.full_precision():
        for optimizer, norm in arithmetic.unfinished():
            _apply(optimizer, norm)


def _apply(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """Change the parameters by their gradients."""
    scaler = current_arithmetic().scaler
    scaler.unscale_(optimizer)
    _federated.get().add_proximal_gradient(optimizer)  # it is part of the loss, so it is clipped with the rest
    if norm < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer._opt_called = True  # type: ignore[attr-defined]  # also where the scale was too high for this step


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Seed torch's global generator (initial weights, dropout) from ``rng`` in the ``with`` block, and restore it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(rng.integers(2**63)))
        yield
