"""A training loop is a for loop in the detector; this generator hides shuffling, progress and the time limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.images import Augment, Batch, Images


def loop(
    train: Images, *, epochs: int, batch: int, rng: np.random.Generator, augment: Augment | None = None
) -> Iterator[Batch]:
    """Yield shuffled batches for ``epochs`` epochs, or until the run's time budget is spent."""
    per_epoch = -(-len(train) // batch)
    for epoch in range(epochs):
        for number, shown in enumerate(train.batches(batch, rng, augment)):
            if progress.time_is_up():
                return
            progress.report("fit", epoch * per_epoch + number, epochs * per_epoch)
            yield shown
    progress.report("fit", epochs * per_epoch, epochs * per_epoch)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take one optimisation step and return the loss; the progress display shows it."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
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
