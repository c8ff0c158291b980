"""Images that cost nothing to make and are all different, for measurements of time and memory."""

from __future__ import annotations

import numpy as np

from iadbe.dataset import Dataset
from iadbe.types import Sample


class Noise(Dataset):
    """Images of smooth noise, each a little different."""

    def __init__(self, root: str, count: int, size: int) -> None:
        super().__init__(root)
        self.count, self.size = count, size

    @property
    def categories(self) -> tuple[str, ...]:
        return ("noise",)

    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(f"{i:03}", "noise", "train", "good", f"{i:03}.png") for i in range(self.count))

    def image(self, sample: Sample) -> np.ndarray:
        rng = np.random.default_rng(int(sample.id))
        coarse = np.random.default_rng(0).integers(0, 200, (16, 16, 3)) + rng.integers(0, 40, (16, 16, 3))
        fine = np.kron(coarse, np.ones((self.size // 16, self.size // 16, 1), int))
        return (fine + rng.integers(0, 16, fine.shape)).astype(np.uint8)
