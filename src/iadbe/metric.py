"""The contract of a metric: a pure function of ground truth and scores.

All curve metrics share one sort, done in :class:`iadbe.curves.curve.Curve`; a metric reads its value from it.

A row's name says how the number is computed. ``pixel_aupro.rd4ad`` is AUPRO in the dialect of RD4AD's code. A mask rule
says which pixels of a resized mask are defect: ``pixel_aupro.touched``, ``pixel_aupro.rd4ad.touched@5%``. The plain
name is always the exact number under the rule ``nearest``. ``image_auroc.kinds`` is the mean over defect types of the
AUROC of each type against the good images, as MVTec LOCO AD defines its AUROC and AU-sPRO.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar

import numpy as np

from iadbe import registry
from iadbe.curves.curve import Counts, Curve
from iadbe.errors import BadConfig, IadbeError, UnknownName, did_you_mean

LEVELS = ("image", "pixel")

EXACT = "exact"
NEAREST = "nearest"
KINDS = "kinds"  # mean over defect types, each against the good images: MVTec LOCO AD's official AUROC and AU-sPRO
MASK_RULES: dict[str, str] = {  # which pixels of a mask are defect after resizing to the view
    NEAREST: "the nearest pixel decides; MSFlow, Dinomaly's evaluation at 256, and ours",
    "over_half": "bilinear, defect from half on; RD4AD, RD++, CPR, ADer, open-iad",
    "touched": "bilinear, defect where any of it is; UniAD, RealNet, the papers of Dinomaly and INP-Former",
    "whole": "bilinear, defect where all of it is; PatchCore, SoftPatch, SimpleNet, GLASS",
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
    """A number of a ranking of images or pixels. Parameters of ``__init__`` appear in :attr:`label`."""

    paper: ClassVar[str] = ""
    year: ClassVar[int] = 0
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True
    rank_based: ClassVar[bool] = True  # invariant under monotone transformations of the scores
    dialects: ClassVar[Mapping[str, str]] = {}  # name -> whose code, and how it computes the metric
    map_dialects: ClassVar[frozenset[str]] = frozenset()  # dialects of pixel rows only
    needs: frozenset[str] = frozenset()  # beyond truth and score: "held_out", "parts"
    dialect: str = EXACT
    mask: str = NEAREST  # rule of the ground truth; set by :func:`parse`
    by_kind: bool = False  # mean over defect types, each against the good images; set by :func:`parse`

    @classmethod
    def at(cls, text: str, **more: Any) -> Metric:
        """Make the metric of a row with ``@text``. Raises :class:`BadConfig` for a metric without a parameter."""
        raise BadConfig(f"{cls.__name__} takes no parameter, so leave out '@{text}'.")

    @property
    def parameter(self) -> str:
        """The text after ``@`` in a row's name; empty for the default."""
        return ""

    @property
    def label(self) -> str:
        """The name in rows, without the level: ``auroc``, ``aupro@5%``, ``aupro.rd4ad``."""
        plain = type(self).__module__.rpartition(".")[2]
        variants = [name for name, default in ((self.dialect, EXACT), (self.mask, NEAREST)) if name != default]
        variants += [KINDS] * self.by_kind
        return ".".join([plain, *variants]) + (f"@{self.parameter}" if self.parameter else "")

    @abstractmethod
    def value(self, curve: Curve) -> float:
        """Return the value, or nan where it is not defined (a class is missing)."""

    def __call__(self, truth: np.ndarray, score: np.ndarray, **more: Any) -> float:
        """Return the value for ``truth`` (N,) or (N, H, W), bool, and ``score`` of the same shape, finite.

        ``more`` are further arguments of :class:`Curve`: ``held_out``, ``parts``.
        """
        return self.value(Curve(truth, score, **more))


class CountMetric(Metric):
    """A metric that is a function of the counts alone, so that a bootstrap computes all draws at once."""

    @abstractmethod
    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the value of each curve: counts (..., K) give (...). Both classes are present.

        Neighbouring thresholds of a resampled curve may have equal counts; the first may have none.
        """

    def value(self, curve: Curve) -> float:
        """Return the value, or nan where one class is missing."""
        return float(self.from_counts(curve.counts)) if curve.has_both else float("nan")


def parse(name: str) -> tuple[str, Metric]:
    """Read a row's name: ``LEVEL_METRIC``, then ``.DIALECT``, ``.MASK_RULE`` and ``.kinds``, then ``@PARAMETER``.

    Examples: ``image_auroc``, ``pixel_aupro@5%``, ``pixel_aupro.rd4ad``, ``image_escape.held_out@1%``.
    """
    level, _, rest = name.partition("_")
    plain, mark, text = rest.partition("@")
    module, colon, tail = plain.rpartition(":")
    tail, *variants = tail.split(".")
    plain = module + colon + tail
    if level not in LEVELS or not (":" in plain or plain in registry.names("metrics")):
        hint = did_you_mean(name, _row_names()) or did_you_mean(f"image_{name}", _row_names())  # without its level
        raise UnknownName(f"no row is named {name!r}.{hint} A row is a level and a metric, such as pixel_aupro@5%.")
    found = registry.load("metrics", plain)
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise BadConfig(f"{plain!r} is not a metric: it must be a class that inherits from iadbe.metric.Metric.")
    if level not in found.of:
        better = did_you_mean(name, (row for row in _row_names() if not row.startswith(level)))
        raise UnknownName(f"no row is named {name!r}: {plain} is a {' and '.join(sorted(found.of))} metric.{better}")
    by_kind = KINDS in variants
    dialect, rule = _variants(name, level, plain, found, [v for v in variants if v != KINDS])
    more = {} if dialect == EXACT else {"dialect": dialect}
    metric = found.at(text, **more) if mark else found(**more)
    if rule != NEAREST:
        metric.mask = rule
    if by_kind:
        metric.by_kind = True
    return level, metric


def resamplable(name: str) -> CountMetric | None:
    """Return the metric of an image row whose value follows from counts alone, or None for any other row.

    None, too, for a metric that is not installed here.
    """
    try:
        level, metric = parse(name)
    except (IadbeError, ImportError):
        return None
    plain = level == "image" and metric.dialect == EXACT and not metric.by_kind
    return metric if plain and isinstance(metric, CountMetric) else None


def dialects_of(found: type[Metric], level: str) -> tuple[str, ...]:
    """Return the dialects that a metric has on a level."""
    return tuple(d for d in found.dialects if level == "pixel" or d not in found.map_dialects)


def share(text: str) -> float:
    """Read ``5%`` as 0.05; nan for any other text."""
    try:
        return float(Decimal(text.removesuffix("%")) / 100) if text.endswith("%") else float("nan")
    except InvalidOperation:
        return float("nan")


def percent(value: float) -> str:
    """Write 0.05 as ``5%``."""
    return f"{value * 100:.12g}%"


def _variants(name: str, level: str, plain: str, found: type[Metric], given: list[str]) -> tuple[str, str]:
    """Return (dialect, mask rule) of the words between a metric's name and its parameter."""
    known, rules = dialects_of(found, level), tuple(MASK_RULES) if level == "pixel" else ()
    dialects, masks = [g for g in given if g in known], [g for g in given if g in rules]
    unknown = [g for g in given if g not in (*known, *rules)]
    if unknown or len(dialects) > 1 or len(masks) > 1:
        what = (
            f"{plain} has no dialect {unknown[0]!r}" if unknown else "a row has at most one dialect and one mask rule"
        )
        have = [f"Its dialects: {', '.join(known)}."] * bool(known) + [f"Mask rules: {', '.join(rules)}."] * bool(rules)
        hint = did_you_mean(unknown[0], (*known, *rules)) if unknown else ""
        raise UnknownName(f"no row is named {name!r}: {what}.{hint} {' '.join(have) or 'It has none.'}")
    return (dialects or [EXACT])[0], (masks or [NEAREST])[0]


def _row_names() -> list[str]:
    """List the plain names of all rows."""
    cards = [registry.card("metrics", name) for name in registry.names("metrics")]
    return [f"{level}_{card.name}" for level in LEVELS for card in cards if level in card.get("of")]
