"""Where another tool may write, and the random numbers that it draws: both are given back at the end.

Tools write logs, checkpoints and caches into the working folder, and draw from the global generators of Python, NumPy
and torch. In a block of :func:`scratch_folder` and :func:`all_seeded` they get a temporary folder and seeds of the run.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from iadbe import system


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a temporary folder, which is removed at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="iadbe-foreign-"))
    try:
        yield folder
    finally:
        system.remove_tree(folder)


@contextmanager
def all_seeded(rng: np.random.Generator) -> Iterator[int]:
    """Seed every global generator from ``rng`` in the block, and restore them; the seed, below 2**31, is given."""
    seed = int(rng.integers(2**31))
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield seed
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
