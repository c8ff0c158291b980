"""A dataset that reads another one: what it does not change is the other's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from iadbe.dataset import Dataset
from iadbe.types import Sample


class WrappedDataset(Dataset):
    """Has the samples, categories and digests of another dataset; subclasses change what is read of a sample."""

    def __init__(self, dataset: Dataset) -> None:
        """Wrap a dataset.

        Args:
            dataset: the dataset that reads the images
        """
        self.dataset = dataset
        self.root: Path = dataset.root
        self.gives = dataset.gives
        self.intensity = dataset.intensity
        self.focal_length = dataset.focal_length

    @property
    def categories(self) -> tuple[str, ...]:
        return self.dataset.categories

    def samples(self) -> tuple[Sample, ...]:
        return self.dataset.samples()

    def common_region(self, sample: Sample) -> np.ndarray | None:
        return self.dataset.common_region(sample)

    def region_digest(self, samples: Sequence[Sample]) -> str:
        return self.dataset.region_digest(samples)

    def digest(self, categories: Collection[str] = ()) -> str:
        return self.dataset.digest(categories)

    def whole_digest(self) -> str:
        return self.dataset.whole_digest()
