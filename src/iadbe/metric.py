"""The contract of a metric: a pure function of what is true and what was scored.

The sorting that all curve metrics share is done once, in :class:`iadbe.curves.curve.Curve`; a metric reads it off.

A number that papers compute otherwise has dialects: ``pixel_aupro.rd4ad`` is AUPRO as RD4AD's code has it. Which pixels
of a resized mask are defect is told apart from that, by a mask rule: ``pixel_aupro.touched``,
``pixel_aupro.rd4ad.touched@5%``. The plain name is always the exact number under the rule ``nearest``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

import numpy as np

from iadbe import registry
from iadbe.curves.curve import Counts, Curve
from iadbe.errors import BadConfig, UnknownName, did_you_mean

LEVELS = ("image", "pixel")

EXACT = "exact"
NEAREST = "nearest"
MASK_RULES: dict[str, str] = {  # how a mask follows its image to the size of the view
    NEAREST: "the nearest pixel decides; MSFlow, Dinomaly's evaluation at 256, and ours",
    "over_half": "bilinear, defect from half on; RD4AD, RD++, CPR, ADer, open-iad",
    "touched": "bilinear, defect where anything of it is; UniAD, RealNet, the papers of Dinomaly and INP-Former",
    "whole": "bilinear, defect only where all of it is; PatchCore, SoftPatch, SimpleNet, GLASS",
}

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
    rank_based: ClassVar[bool] = True  # only the order of the scores counts, not how far apart they are
    dialects: ClassVar[Mapping[str, str]] = {}  # how else it is computed: name -> by whom, and how
    map_dialects: ClassVar[frozenset[str]] = frozenset()  # dialects that need maps
    needs: frozenset[str] = frozenset()  # beyond truth and score: "held_out", "parts"
    dialect: str = EXACT
    mask: str = NEAREST  # the rule that the truth follows; set by :func:`parse`

    @classmethod
    def at(cls, text: str, **more: Any) -> Metric:
        """Make the metric that a row names with ``@text``; a metric without such a parameter refuses."""
        raise BadConfig(f"{cls.__name__} takes no parameter, so leave out '@{text}'.")

    @property
    def parameter(self) -> str:
        """What stands after ``@`` in a row's name; empty for the usual value."""
        return ""

    @property
    def label(self) -> str:
        """The short name that rows carry: ``auroc``, ``aupro@5%``, ``aupro.rd4ad``."""
        plain = type(self).__module__.rpartition(".")[2]
        ways = [way for way, usual in ((self.dialect, EXACT), (self.mask, NEAREST)) if way != usual]
        return ".".join([plain, *ways]) + (f"@{self.parameter}" if self.parameter else "")

    @abstractmethod
    def value(self, curve: Curve) -> float:
        """Return the number, or nan where it is not defined (no defects, or nothing but defects)."""

    def __call__(self, truth: np.ndarray, score: np.ndarray, **more: Any) -> float:
        """Return the number for ``truth`` (N,) or (N, H, W), bool, and ``score`` of the same shape, finite.

        ``more`` is what else a :class:`Curve` takes: ``held_out``, ``parts``.
        """
        return self.value(Curve(truth, score, **more))


class CountMetric(Metric):
    """A metric that is a function of the counts alone, so that a bootstrap can compute it a thousand times at once."""

    @abstractmethod
    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the number of each curve: counts (..., K) give (...). Both classes are there.

        A resampled curve may have thresholds at which nothing is new, also at its top.
        """

    def value(self, curve: Curve) -> float:
        """Return the number, or nan where one class is missing."""
        return float(self.from_counts(curve.counts)) if curve.has_both else float("nan")


def parse(name: str) -> tuple[str, Metric]:
    """Read a row's name: ``LEVEL_METRIC``, then the ways it is computed, ``.DIALECT`` and ``.MASK_RULE``, then ``@X``.

    Examples: ``image_auroc``, ``pixel_aupro@5%``, ``pixel_aupro.rd4ad``, ``image_escape.held_out@1%``.
    """
    level, _, rest = name.partition("_")
    plain, mark, text = rest.partition("@")
    module, colon, tail = plain.rpartition(":")
    tail, *ways = tail.split(".")
    plain = module + colon + tail
    if level not in LEVELS or not (":" in plain or plain in registry.names("metrics")):
        hint = did_you_mean(name, _rows()) or did_you_mean(f"image_{name}", _rows())  # the level may be forgotten
        raise UnknownName(f"no row is named {name!r}.{hint} A row is a level and a metric, such as pixel_aupro@5%.")
    found = registry.load("metrics", plain)
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise BadConfig(f"{plain!r} is not a metric: it must be a class that inherits from iadbe.metric.Metric.")
    if level not in found.of:
        better = did_you_mean(name, (row for row in _rows() if not row.startswith(level)))
        raise UnknownName(f"no row is named {name!r}: {plain} is a {' and '.join(sorted(found.of))} metric.{better}")
    dialect, rule = _ways(name, level, plain, found, ways)
    more = {} if dialect == EXACT else {"dialect": dialect}
    metric = found.at(text, **more) if mark else found(**more)
    if rule != NEAREST:
        metric.mask = rule
    return level, metric


def dialects_of(found: type[Metric], level: str) -> tuple[str, ...]:
    """Return the dialects that a metric has on a level."""
    return tuple(d for d in found.dialects if level == "pixel" or d not in found.map_dialects)


def share(text: str) -> float:
    """Read ``5%`` as 0.05; what is no share of 1 becomes nan."""
    try:
        return float(Decimal(text.removesuffix("%")) / 100) if text.endswith("%") else float("nan")
    except InvalidOperation:
        return float("nan")


def percent(value: float) -> str:
    """Write 0.05 as ``5%``."""
    return f"{value * 100:.12g}%"


def _ways(name: str, level: str, plain: str, found: type[Metric], ways: list[str]) -> tuple[str, str]:
    """Return (dialect, mask rule) of the words between a metric's name and its parameter."""
    known, rules = dialects_of(found, level), tuple(MASK_RULES) if level == "pixel" else ()
    dialects, masks = [w for w in ways if w in known], [w for w in ways if w in rules]
    strange = [w for w in ways if w not in (*known, *rules)]
    if strange or len(dialects) > 1 or len(masks) > 1:
        what = f"{plain} has no dialect {strange[0]!r}" if strange else "one dialect and one mask rule is the most"
        have = [f"Its dialects: {', '.join(known)}."] * bool(known) + [f"Mask rules: {', '.join(rules)}."] * bool(rules)
        hint = did_you_mean(strange[0], (*known, *rules)) if strange else ""
        raise UnknownName(f"no row is named {name!r}: {what}.{hint} {' '.join(have) or 'It has none.'}")
    return (dialects or [EXACT])[0], (masks or [NEAREST])[0]


def _rows() -> list[str]:
    """List the plain names of all rows, from the cards."""
    cards = [registry.card("metrics", name) for name in registry.names("metrics")]
    return [f"{level}_{card.name}" for level in LEVELS for card in cards if level in card.get("of")]
