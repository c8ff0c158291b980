"""What went into an exported file, and under which licences: training data, backbones' weights, code.

Licences are what data sets' cards, timm's configurations and this package state. They are told, not judged, but for one
thing: a licence that forbids commercial use is recognised by its words, because such a file must not reach a line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import metadata
from typing import Any

import torch
from torch import nn

from iadbe import registry
from iadbe.errors import BadConfig
from iadbe.networks.backbone import Backbone
from iadbe.networks.timm_loader import load_timm
from iadbe.running.model_folder import FittedDetector

NONCOMMERCIAL = re.compile(r"\bnc\b|non-?\s?commercial|research[ -]only|academic", re.IGNORECASE)
UNKNOWN = "not known"
OWN = "yours"  # of folders: the user's own images
ALLOWED = ("noncommercial", "own")  # what a user can say: the file is for research alone; the images are their own


@dataclass(frozen=True, slots=True)
class Origin:
    """One thing that went into a file."""

    part: str  # "training data", "backbone weights", "learnt", "code"
    name: str
    licence: str  # as its source states it; "not known" where it states none
    digest: str = ""  # sha256 of its tensors, or of the training images' digests

    @property
    def is_noncommercial(self) -> bool:
        """Whether its licence forbids commercial use."""
        return NONCOMMERCIAL.search(self.licence) is not None


def origins_of(fitted: FittedDetector, images_digest: str = "", allowed: Collection[str] = ()) -> tuple[Origin, ...]:
    """Return what went into a fitted detector.

    Args:
        fitted: a loaded model
        images_digest: of its training images
        allowed: what the user has said, of ``ALLOWED``
    """
    found = [_data(fitted, images_digest, "own" in allowed)]
    inside: set[str] = set()
    for name, module in fitted.detector.named_modules():
        if isinstance(module, Backbone):
            inside.add(name)
            found.append(Origin("backbone weights", module.description, _licence_of(module), _digest(module)))
    found.append(Origin("learnt", fitted.name, OWN, _digest(fitted.detector, inside)))
    found.append(Origin("code", "iadbe", str(metadata("iadbe")["License-Expression"] or "Apache-2.0")))
    return tuple(found)


def check(origins: Sequence[Origin], allowed: Collection[str] = ()) -> None:
    """Raise :class:`BadConfig` where a licence forbids commercial use and the user has not said that this is none."""
    for word in allowed:
        if word not in ALLOWED:
            raise BadConfig(f"--allow takes {' or '.join(ALLOWED)}, not {word!r}.")
    concerned = [f"{o.part} ({o.name}: {o.licence})" for o in origins if o.is_noncommercial]
    if concerned and "noncommercial" not in allowed:
        raise BadConfig(
            f"a licence forbids commercial use: {'; '.join(concerned)}. If the file is for research alone, add "
            "--allow noncommercial, which its card then says; if the images are your own and only lie in the layout of "
            "that data set, --allow own."
        )


def as_card(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """Return the origins as values that JSON has."""
    return [asdict(origin) for origin in origins]


def _data(fitted: FittedDetector, digest: str, is_own: bool) -> Origin:
    """Return the training data; a category that a data set does not have is the user's own, in its layout."""
    name = fitted.about.get("dataset")
    if not isinstance(name, str):
        return Origin("training data", UNKNOWN, OWN if is_own else UNKNOWN, digest)
    card = registry.card("datasets", name) if name in registry.names("datasets") else None
    counts, licence = (card.get("counts"), card.get("licence")) if card is not None else ({}, "")
    categories = set(re.split(r"[+,\s]+", str(fitted.about.get("task", "")))) - {""}
    official = {*counts, "all"}
    is_own = is_own or bool(counts and categories and not categories & official)
    return Origin("training data", name, OWN if is_own else str(licence or UNKNOWN), digest)


def _licence_of(backbone: Backbone) -> str:
    """Return the licence of a backbone's weights: timm's for a network of its own, unknown for other files."""
    if backbone.source.startswith("random"):
        return "none: random weights"
    if backbone.source.startswith("file"):
        return UNKNOWN
    found = load_timm().get_pretrained_cfg(backbone.name)
    return (getattr(found, "license", None) or UNKNOWN) if found is not None else UNKNOWN


def _digest(module: nn.Module, without: Collection[str] = ()) -> str:
    """Return the sha256 of a module's tensors in the order of their names, leaving out submodules by name."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not any(name.startswith(f"{other}.") for other in without):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
