"""Images that an exported file is compared on: those that are given, else images that the model has learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iadbe import registry
from iadbe.data import resolve
from iadbe.data.images import read_view
from iadbe.dataset import Dataset, Index, evenly_spaced
from iadbe.errors import IadbeError
from iadbe.files.input_images import InputImage
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime.references import COUNT
from iadbe.types import Sample

GIVEN, LEARNT, DRAWN = "given images", "training images", "drawn patterns"


def given_or_learnt(
    fitted: FittedDetector, given: Sequence[InputImage] = (), count: int = COUNT
) -> tuple[list[np.ndarray], str]:
    """Return images (H, W, 3) uint8, at most ``count``, and what they are; none and "drawn patterns" without any.

    A model knows the name of its data, not where it lies: its training images are found where data of that name is
    kept, and are taken only if their pixels are those that it has learnt.
    """
    if given:
        places = np.unique(np.linspace(0, len(given) - 1, min(count, len(given))).round().astype(int))
        return [given[place].read(fitted.intensity)[0] for place in places], GIVEN
    found = _learnt(fitted, count)
    return (found, LEARNT) if found else ([], DRAWN)


def _learnt(fitted: FittedDetector, count: int) -> list[np.ndarray]:
    name, task = str(fitted.about.get("dataset", "")), str(fitted.about.get("task", ""))
    if name not in registry.names("datasets") or not fitted.learnt or fitted.intensity is not None:
        return []  # a card may name what the registries hold, no path and no code
    try:
        data = resolve.find(name)
        dataset = resolve.make(data.name, data.params)
        if task not in dataset.categories:
            return []
        samples = evenly_spaced(Index(dataset.samples()).train(task), count)
        return [dataset.image(sample) for sample in samples if _was_learnt(fitted, dataset, sample)]
    except (IadbeError, OSError):  # the data is not here
        return []


def _was_learnt(fitted: FittedDetector, dataset: Dataset, sample: Sample) -> bool:
    return fitted.was_trained_on(read_view(dataset, sample, fitted.detector.view)[1])
