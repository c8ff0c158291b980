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
    """One method. Class attributes are literals, so that they can be read without importing the file.

    What ``fit`` learns lies in parameters and buffers (register an empty buffer in ``__init__`` and assign to it
    in ``fit``): that is all there is to save, load, move to a device or merge.
    """

    paper: ClassVar[str] = ""  # authors, title, venue, arXiv number
    year: ClassVar[int] = 0
    kind: ClassVar[str] = ""  # memory bank, Gaussian, student-teacher, reconstruction, flow, density …
    version: ClassVar[int] = 1  # raised whenever the numbers change
    needs: ClassVar[frozenset[str]] = frozenset({"image"})  # of dataset and setting
    can: ClassVar[frozenset[str]] = frozenset()  # "localise", "merge", "continue", "zero-shot", "transductive" …
    paper_view: ClassVar[Mapping[str, int]] = {"resize": 256}
    renamed: ClassVar[Mapping[str, str]] = {}  # parameters: old name -> new name
    renamed_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {  # parameter -> old value -> new value
        "backbone": {"tf_efficientnet_lite0": "tf_efficientnet_lite0.in1k"}  # the same weights: there is only one tag
    }
    added: ClassVar[Mapping[str, Any]] = {}  # parameters of later versions -> the value of the earlier behaviour
    renamed_tensors: ClassVar[Mapping[str, str]] = {}  # parts of tensors' names; of any module, not only detectors
    paper_params: ClassVar[Mapping[str, Any]] = {}  # what the paper used and the defaults do not
    paper_by_category: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # the same for "dataset/category" alone

    def __init__(self) -> None:
        super().__init__()
        self.view = View()

    @abstractmethod
    def fit(self, train: Images, rng: np.random.Generator) -> None:
        """Learn afresh: what an earlier fit left behind is forgotten. Every random number comes from ``rng``."""

    def update(self, train: Images, rng: np.random.Generator) -> None:
        """Learn more, at every step but the first.

        By default: where ``can`` says "merge", merge what was known with what is new; else fit anew, the naive
        continual baseline. Where ``can`` says "continue", train on from the parameters as they are, fitted or not.
        """
        before = copy.deepcopy(self) if "merge" in self.can else None
        self.fit(train, rng)
        if before is not None:
            self.merge([before, copy.deepcopy(self)])

    @abstractmethod
    def predict(self, batch: Batch) -> Prediction:
        """Score each image of a batch alone: no image affects another's score."""

    def merge(self, others: Sequence[Self]) -> None:
        """Become what ``others`` have learnt together (federated). Only where ``can`` says "merge"."""
        raise BadDetector(f"{type(self).__name__} cannot merge.")

    def weights(self) -> str:
        """Return the fingerprint and source of the backbone's weights, or the empty string without a backbone."""
        backbones = [m for m in self.modules() if isinstance(m, Backbone)]
        return "; ".join(b.description for b in backbones)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what another instance of the same class, made with the same parameters, has learnt."""
        own = dict(self.state_dict(keep_vars=True))
        given = {self._current_name(name): value for name, value in tensors.items()}
        if lacking := [name for name in own if name not in given and name not in _shared(self)]:
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
        """Follow ``renamed_tensors`` of each module on the way to a tensor, so that older models can be loaded."""
        module: Any = self
        parts = []
        for part in name.split("."):
            parts.append(getattr(type(module), "renamed_tensors", {}).get(part, part))
            module = getattr(module, parts[-1], None)
        return ".".join(parts)


def _shared(detector: Detector) -> set[str]:
    """Return the names of tensors that stand for another name's storage, which a file holds only once."""
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
