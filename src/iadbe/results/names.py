"""Names of runs in tables: datasets, settings and detectors with the parameters that distinguish them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadbe import registry
from iadbe.errors import IadbeError
from iadbe.types import RunResult, RunSpec

if TYPE_CHECKING:
    from iadbe.results.entry import Entry

MANY = 4  # items listed in a sentence


def shortened(names: Sequence[str]) -> str:
    """Return the first names and the number of the others."""
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")


def grouped(number: int) -> str:
    """Format a number with thousands apart: 4 800."""
    return f"{number:,}".replace(",", " ")


def published_counts(dataset: str) -> Mapping[str, Sequence[int]]:
    """Return the published numbers of images by category, as the dataset's card states them; empty without."""
    try:
        found: Mapping[str, Sequence[int]] = registry.card("datasets", dataset).get("counts", {})
    except (IadbeError, ImportError, OSError, SyntaxError):
        return {}
    return found


def setting_name(spec: RunSpec) -> str:
    """Return the setting with its main number and what is not a default: ``few_shot(k=4, others=yes)``."""
    return spec.setting + _bracket(_not_default("settings", spec.setting, spec.setting_params, number=True))


def dataset_name(spec: RunSpec) -> str:
    """Return the dataset with parameters that are not defaults: ``toy(count=80)``."""
    return spec.dataset + _bracket(_not_default("datasets", spec.dataset, spec.dataset_params))


def is_own_data(dataset: str, categories: Collection[str]) -> bool:
    """Return whether data is the user's own: a reader of any folders, or published categories that are not there."""
    try:
        card = registry.card("datasets", dataset)
    except (IadbeError, ImportError, OSError, SyntaxError):
        return False
    counts = card.get("counts", {})
    return card.get("licence", "") == "yours" or bool(counts and not set(categories) & set(counts))


def data_name(dataset: str, params: Mapping[str, Any], categories: Collection[str]) -> str:
    """Return the name of data: one's own folder by its name, a published dataset by its reader."""
    folder = Path(str(params.get("root") or "")).absolute().name
    return folder if folder and params.get("root") and is_own_data(dataset, categories) else dataset


def data_title(result: RunResult) -> str:
    """Return the name of a run's data: one's own folder by its name, a published dataset by its reader."""
    own = result.data_name and is_own_data(result.spec.dataset, result.images or {result.spec.task})
    return result.data_name if own else dataset_name(result.spec)


def data_and_category(spec: RunSpec, folder: str = "") -> str:
    """Return the data of a run with its category, for people: one's own folder by its name, once."""
    folder = folder or (Path(spec.place["root"]).name if "root" in spec.place else "")
    if not folder or not is_own_data(spec.dataset, {spec.task}):
        return f"{spec.dataset} {spec.task}"
    return spec.task if folder == spec.task else f"{folder} {spec.task}"


def foreign_note(detector: str) -> str:
    """Return the sentence that marks another tool's detector in a table; empty for those of IADBE."""
    if detector not in registry.names("detectors"):
        return ""
    tool = registry.card("detectors", detector).get("foreign")
    return f"{detector} is foreign: code and training are those of {tool}, not of IADBE." if tool else ""


def changed_params(entry: Entry) -> dict[str, Any]:
    """Return the parameters that are not the detector's defaults."""
    return _not_default("detectors", entry.detector, entry.params)


def parameter_notes(entries: Sequence[Entry]) -> list[str]:
    """Return sentences on parameters that are not defaults, one for all detectors with the same."""
    alike: dict[str, list[str]] = {}
    for entry in entries:
        changed = {k: v for k, v in sorted(changed_params(entry).items()) if f"{k}=" not in entry.name}
        if changed:
            alike.setdefault(", ".join(f"{k}={format_value(v)}" for k, v in changed.items()), []).append(entry.name)
    sentences = []
    for text, names in alike.items():
        subject = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        possessive = "its" if len(names) == 1 else "their"
        sentences.append(f"{subject} ran with {text}; {possessive} other parameters are the defaults.")
    return sentences


def _not_default(registry_name: str, name: str, params: Mapping[str, Any], number: bool = False) -> dict[str, Any]:
    """Return what differs from the card, and with ``number`` a numeric first parameter; without a card, all."""
    try:
        known = registry.card(registry_name, name).parameters
    except (IadbeError, ImportError, OSError, SyntaxError):
        known = ()
    defaults = {p.name: format_value(p.default) for p in known}
    main = known[0].name if number and known and type(known[0].default) in (int, float) else ""
    return {k: v for k, v in params.items() if k == main or defaults.get(k) != format_value(v)}


def detector_name(spec: RunSpec, siblings: Sequence[RunSpec]) -> str:
    """Name a detector with the parameters in which it differs from its siblings."""
    keys = sorted({k for s in siblings for k in s.detector_params})
    telling = [k for k in keys if len({format_value(s.detector_params.get(k)) for s in siblings}) > 1]
    params = {k: spec.detector_params[k] for k in telling if k in spec.detector_params}
    versions = {s.versions.get("detector", 1) for s in siblings}
    if len(versions) > 1:
        params["version"] = spec.versions.get("detector", 1)
    return spec.detector + _bracket(params)


def _bracket(params: Mapping[str, Any]) -> str:
    text = ", ".join(f"{k}={format_value(v)}" for k, v in sorted(params.items()) if v is not None)
    return f"({text})" if text else ""


def format_value(value: Any) -> str:
    """Format a parameter's value; of a file, its name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "+".join(format_value(v) for v in value)
    text = str(value)
    return text.removeprefix("file:").partition("#")[0] if text.startswith("file:") else text
