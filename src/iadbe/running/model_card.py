"""The card of a model folder: ``detector.json``, checked before anything that it names is imported or called.

A model folder may come from anywhere. Its card may name a detector of the registry, or a class that the user trusts
(see :func:`iadbe.registry.trust`); its parameters are checked against that detector's card.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig, BadData, IadbeError, UnknownName
from iadbe.evaluation.calibration import Calibration
from iadbe.parameters import complete
from iadbe.protocol import FITS, Tiling
from iadbe.registry import card as registry_card
from iadbe.running import template_files
from iadbe.runtime import parts, regions
from iadbe.types import ChannelProjection, IntensityRange

FORMAT = 1
FILE = "detector.json"
MOST_VERSION = 10_000
MOST_IMAGES = 10**12
MOST_PIXELS = 2**14  # height and width of a view
_TYPES = {f.name: str(f.type) for f in fields(Calibration)}  # as its source writes them
TEXTS, COUNTS, RATES = ([n for n, kind in _TYPES.items() if kind == wanted] for wanted in ("str", "int", "Rate | None"))
RULES = ("rule", "combination")  # which their own modules read


def read(folder: Path) -> dict[str, Any]:
    """Return the card of a model folder as it was written. All of it is checked, the parameters too.

    Raises :class:`BadData` for a damaged or foreign card, :class:`BadConfig` for one of another format version, and
    :class:`UnknownName` for a detector that is neither in the registry nor trusted.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(folder, f"{FILE} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise damaged(folder, f"{FILE} holds {_kind(found)} instead of an object")
    if "format" not in found:
        raise damaged(folder, f"{FILE} has no format, so it is not a card of IADBE")
    if found["format"] != FORMAT:
        raise BadConfig(f"{folder} was written by another version of IADBE (format {found['format']!r}).")
    for name, (is_right, what) in FIELDS.items():
        if name not in found and name not in OPTIONAL:
            raise damaged(folder, f"{FILE} has no {name}")
        if name in found and not is_right(found[name]):
            raise damaged(folder, f"{name} in {FILE} must be {what}, not {str(found[name])[:60]!r}")
    try:
        complete(registry_card("detectors", found["detector"]), found["params"])
    except UnknownName as error:
        if str(error).startswith(f"{found['detector']} "):  # one of its parameters
            raise damaged(folder, str(error).rstrip(".")) from error
        raise UnknownName(f"{folder} cannot be loaded: {error}") from error
    except IadbeError as error:
        raise damaged(folder, str(error).rstrip(".")) from error
    return found


def write(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card, whole or not at all."""
    with system.replacing(folder / FILE) as part:
        part.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def damaged(folder: Path, why: str) -> BadData:
    """Return the error for a model folder that cannot be read."""
    return BadData(f"{folder} cannot be read as a model: {' '.join(why.split())}. Train it again.")


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}.get(type(value), "a number")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_version(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_VERSION


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_view(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= {"resize", "crop", "fit", "resize_width"}:
        return False
    numbers = [number for key, number in value.items() if key != "fit"]
    whole = all(type(number) is int and 0 <= number <= MOST_PIXELS for number in numbers)
    return whole and value.get("fit", "squash") in FITS


def _are_weights(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in value
    )


def _is_calibration(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(value.get(name, ""), str) for name in TEXTS):
        return False
    try:
        regions.read(value.get("rule"))
        parts.read(value.get("combination"))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        return False
    numbers = [v for k, v in value.items() if k not in (*TEXTS, *COUNTS, *RATES, *RULES)]
    counts, rates = ([value[name] for name in names if name in value] for names in (COUNTS, RATES))
    return (
        all(map(_is_number, numbers))
        and all(type(count) is int and 0 <= count < MOST_IMAGES for count in counts)
        and all(map(_is_rate, rates))
        and (value.get("width") is None or value["width"] > 0)
    )


def _is_rate(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or any(value.get(name) is None for name in ("value", "low", "high")):
        return False
    flags = [v for k, v in value.items() if k in ("guaranteed", "promised")]  # the second one in earlier versions
    numbers = [v for k, v in value.items() if k not in ("guaranteed", "promised")]
    return all(isinstance(flag, bool) for flag in flags) and all(map(_is_number, numbers))


def _is_number(value: Any) -> bool:
    try:
        return value is None or (type(value) in (int, float) and math.isfinite(value))
    except OverflowError:  # of a whole number with hundreds of digits
        return False


def _is_range(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) - {"projection"} != {"low", "high", "source"}:
        return False
    if not isinstance(value["source"], str) or not _is_projection(value.get("projection")):
        return False
    numbers = [value["low"], value["high"]]
    return all(_is_number(v) and v is not None and not isinstance(v, bool) for v in numbers) and numbers[0] < numbers[1]


def _is_projection(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"weights", "offset", "source"}:
        return False
    rows, offset = value["weights"], value["offset"]
    if not isinstance(rows, list) or len(rows) not in (1, 3) or not all(isinstance(row, list) and row for row in rows):
        return False
    numbers = [*offset, *(weight for row in rows for weight in row)] if isinstance(offset, list) else [None]
    equal = len({len(row) for row in rows}) == 1 and len(offset) == len(rows)
    return equal and all(_is_number(v) and v is not None for v in numbers) and isinstance(value["source"], str)


def intensity_of(value: Mapping[str, Any] | None) -> IntensityRange | None:
    """Return the range that a checked card holds."""
    if not value:
        return None
    found, given = value.get("projection"), {k: v for k, v in value.items() if k != "projection"}
    if found is None:
        return IntensityRange(**given)
    weights = tuple(tuple(map(float, row)) for row in found["weights"])
    return IntensityRange(
        **given, projection=ChannelProjection(weights, tuple(map(float, found["offset"])), found["source"])
    )


def _is_region(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"size", "runs"} or not isinstance(value["runs"], str):
        return False
    size = value["size"]
    sides = isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= MOST_PIXELS for n in size)
    return sides and all(run.isdecimal() and len(run) < 12 for run in value["runs"].split())


def _is_tiling(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(Tiling.parse(value))
    except BadConfig:
        return False


def _are_digests(value: Any) -> bool:
    return value is None or isinstance(value, str)


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "detector": (_is_text, "the name of a detector"),
    "params": (_is_mapping, "names with values"),
    "version": (_is_version, "the whole number of the detector's version"),
    "view": (_is_view, f"resize, crop and fit, in whole pixels up to {MOST_PIXELS}"),
    "weights": (_are_weights, "a list of pairs of texts"),
    "calibration": (_is_calibration, "names with finite numbers"),
    "about": (_is_mapping, "names with values"),
    "intensity": (_is_range, "the range of deep images, with low below high, and the projection of their channels"),
    "region": (_is_region, "a size and run lengths"),
    "learnt": (_are_digests, "digests with spaces between them"),
    "tiling": (_is_tiling, "tiles such as 512/64"),
    "templates": (template_files.is_valid, "a category, size, limits and the lowest correlation of each reference"),
}
OPTIONAL = ("version", "learnt", "intensity", "region", "tiling", "templates")  # older cards lack them
