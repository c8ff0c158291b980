"""The contract of a detector: fit on images that are labelled normal, then score each image by itself."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.data.images import Batch, Images, View
from iadbe.errors import BadDetector
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

__all__ = ["Backbone", "Batch", "Detector", "Images", "Prediction", "View", "generator"]  # what a detector's file needs


class Detector(nn.Module, ABC):
    """One anomaly detection method. Class attributes are literals, as they are read without importing the file.

    Everything that ``fit`` learns is in parameters and buffers: register an empty buffer in ``__init__`` and assign to
    it in ``fit``. Only these are saved, loaded, moved to a device and merged.
    """

    paper: ClassVar[str] = ""  # authors, title, venue, arXiv number
    year: ClassVar[int] = 0
    foreign: ClassVar[str] = ""  # the tool whose code this is, where it is not IADBE's; every table marks it
    kind: ClassVar[str] = ""  # memory bank, Gaussian, student-teacher, reconstruction, flow, density …
    version: ClassVar[int] = 1  # raised whenever the numbers change
    needs: frozenset[str] = frozenset({"image"})  # of dataset and setting; an instance may need more, by its parameters
    needs_for: ClassVar[Mapping[str, Mapping[Any, Sequence[str]]]] = {}  # parameter -> value -> what it needs beside
    can: ClassVar[frozenset[str]] = frozenset()  # "localise", "merge", "continue", "continual", "zero-shot" …
    whole_image: ClassVar[str] = ""  # what is of a whole image, with ignored pixels in the mean colour, and why
    not_exportable: str = ""  # why no exported file can hold it; an instance may say so too, by its parameters
    not_exportable_for: ClassVar[Mapping[str, Mapping[Any, str]]] = {}  # parameter -> value -> why no file can hold it
    paper_view: ClassVar[Mapping[str, int]] = {"resize": 256}
    renamed: ClassVar[Mapping[str, str]] = {}  # parameters: old name -> new name
    renamed_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {  # parameter -> old value -> new value
        "backbone": {"tf_efficientnet_lite0": "tf_efficientnet_lite0.in1k"}  # the same weights: there is only one tag
    }
    added: ClassVar[Mapping[str, Any]] = {}  # parameters of later versions -> the value of the earlier behaviour
    renamed_tensors: ClassVar[Mapping[str, str]] = {}  # parts of tensors' names; of any module, not only detectors
    paper_params: ClassVar[Mapping[str, Any]] = {}  # what the paper used and the defaults do not
    weight_files: ClassVar[Mapping[str, str]] = {}  # parameters that take a published file: which one
    paper_by_category: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # the same for "dataset/category" alone

    def __init__(self) -> None:
        super().__init__()
        self.view = View()

    @abstractmethod
    def fit(self, train: Images, rng: np.random.Generator) -> None:
        """Fit to training images; an earlier fit is forgotten. Every random number comes from ``rng``."""

    def update(self, train: Images, rng: np.random.Generator) -> None:
        """Learn from further training images, at every step of a continual setting but the first.

        By default, a detector that ``can`` "merge" is merged with one that is fitted to the new images. Any other is
        fitted to the new images only, the naive continual baseline. A detector that ``can`` "continue" overrides this
        method and goes on from its parameters, fitted or not. One that ``can`` "continual" overrides it too and keeps a
        memory of earlier images, whose tensors grow, so that copies cannot be averaged.
        """
        before = copy.deepcopy(self) if "merge" in self.can else None
        self.fit(train, rng)
        if before is not None:
            self.merge([before, copy.deepcopy(self)])

    @property
    def keeps_what_it_learnt(self) -> bool:
        """Whether :meth:`update` goes on from earlier training images, instead of forgetting them."""
        return type(self).update is not Detector.update or "merge" in self.can

    @abstractmethod
    def predict(self, batch: Batch) -> Prediction:
        """Return score (B,) and map (B, H, W) of each image. No image affects the score of another."""

    def for_export(self) -> Self:
        """Return what an exported file computes instead, called on a copy of a fitted detector; by default itself.

        A graph can neither branch on values nor draw random numbers nor take a part of a batch. What needs that has
        another form where ``torch.compiler.is_exporting()``, and gets fixed values here. Other modules may have this
        method too.
        """
        return self

    def own_measures(self, test: Images) -> Mapping[str, float]:
        """Return numbers by another tool's own measures, by row name; called when all predictions are made.

        It reads labels and masks of the test images, as metrics do, so it must not change the detector.
        """
        return {}

    def merge(self, others: Sequence[Self]) -> None:
        """Become the detector that ``others`` make together (federated learning), if ``can`` has "merge"."""
        raise BadDetector(f"{type(self).__name__} cannot merge.")

    def weights(self) -> str:
        """Return the name, fingerprint and source of the backbone's weights; without a backbone an empty string."""
        backbones = [m for m in self.modules() if isinstance(m, Backbone)]
        return "; ".join(b.description for b in backbones)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the parameters and buffers of another instance of the class with the same parameters.

        Names of earlier versions are followed (``renamed_tensors``). A tensor that is missing or unknown raises
        :class:`iadbe.errors.BadDetector`.
        """
        own = dict(self.state_dict(keep_vars=True))
        given = {self._current_name(name): value for name, value in tensors.items()}
        if lacking := [name for name in own if name not in given and name not in shared_tensors(self)]:
            raise BadDetector(f"the saved {type(self).__name__} lacks {', '.join(lacking[:3])}.")
        for name, value in given.items():
            path, _, attribute = name.rpartition(".")
            module = self.get_submodule(path)
            expected = own.get(name)
            if expected is not None and expected.dtype != value.dtype:
                raise BadDetector(f"the saved {type(self).__name__} has {name} as {value.dtype}, not {expected.dtype}.")
            if attribute in module._buffers:
                module._buffers[attribute] = value
            elif attribute in module._parameters:
                module._parameters[attribute] = nn.Parameter(value, requires_grad=value.requires_grad)
            else:
                raise BadDetector(f"the saved {type(self).__name__} has {name}, which this version does not know.")

    def _current_name(self, name: str) -> str:
        """Return the present name of a tensor, by ``renamed_tensors`` of each module on its path."""
        module: Any = self
        parts = []
        for part in name.split("."):
            parts.append(getattr(type(module), "renamed_tensors", {}).get(part, part))
            module = getattr(module, parts[-1], None)
        return ".".join(parts)


def shared_tensors(detector: Detector) -> set[str]:
    """Return the names of tensors that share the storage of another name; a file holds these only once."""
    seen: dict[int, str] = {}
    shared = set()
    for name, value in detector.state_dict(keep_vars=True).items():
        if value.numel() and value.data_ptr() in seen:
            shared.add(name)
        seen.setdefault(value.data_ptr(), name)
    return shared


def generator(rng: np.random.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator that follows from ``rng``."""
    return torch.Generator(device).manual_seed(int(rng.integers(2**63)))
