"""The contract of a metric: a pure function of what is true and what was scored.

The sorting that all curve metrics share is done once, in :class:`iadbe.curve.Curve`; a metric reads it off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from iadbe import registry
from iadbe.curve import Curve
from iadbe.errors import BadConfig, UnknownName, did_you_mean

LEVELS = ("image", "pixel")

DEFAULT: tuple[str, ...] = (
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "pixel_aupro",
    "pixel_aupro@5%",
)


class Metric(ABC):
    """One number of a ranking. Parameters come through ``__init__`` and show in :attr:`label`."""

    paper: ClassVar[str] = ""
    year: ClassVar[int] = 0
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True

    @classmethod
    def at(cls, text: str) -> Metric:
        """Make the metric that a row names with ``@text``; a metric without such a parameter refuses."""
        raise BadConfig(f"{cls.__name__} takes no parameter, so leave out '@{text}'.")

    @property
    def label(self) -> str:
        """The short name that rows carry: ``auroc``, ``aupro@5%``."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def value(self, curve: Curve) -> float:
        """Return the number, or nan where it is not defined (no defects, or nothing but defects)."""

    def __call__(self, truth: np.ndarray, score: np.ndarray) -> float:
        """Return the number for ``truth`` (N,) or (N, H, W), bool, and ``score`` of the same shape, finite."""
        return self.value(Curve(truth, score))


def parse(name: str) -> tuple[str, Metric]:
    """Read a row's name, ``LEVEL_METRIC`` or ``LEVEL_METRIC@PARAMETER``: ``image_auroc``, ``pixel_aupro@5%``."""
    level, _, rest = name.partition("_")
    plain, mark, text = rest.partition("@")
    if level not in LEVELS or not (":" in plain or plain in registry.names("metrics")):
        hint = did_you_mean(name, _rows()) or did_you_mean(f"image_{name}", _rows())  # the level may be forgotten
        raise UnknownName(f"no row is named {name!r}.{hint} A row is a level and a metric, such as pixel_aupro@5%.")
    found = registry.load("metrics", plain)
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise BadConfig(f"{plain!r} is not a metric: it must be a class that inherits from iadbe.metric.Metric.")
    if level not in found.of:
        better = did_you_mean(name, (row for row in _rows() if not row.startswith(level)))
        raise UnknownName(f"no row is named {name!r}: {plain} is a {' and '.join(sorted(found.of))} metric.{better}")
    return level, found.at(text) if mark else found()


def _rows() -> list[str]:
    """List the plain names of all rows, from the cards."""
    cards = [registry.card("metrics", name) for name in registry.names("metrics")]
    return [f"{level}_{card.name}" for level in LEVELS for card in cards if level in card.get("of")]
