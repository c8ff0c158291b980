"""Expand a grid into runs, and into skipped cells with reasons. Nothing is trained here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from iadbe.data import resolve
from iadbe.dataset import Dataset, Index
from iadbe.errors import BadConfig, UnknownName, did_you_mean
from iadbe.files import region_files
from iadbe.files.layout import load_yaml, yaml_hint
from iadbe.metric import DEFAULT, parse
from iadbe.parameters import complete, needs_with, without_paths
from iadbe.protocol import Budget, Protocol
from iadbe.registry import Card, card, load
from iadbe.running import code_digest
from iadbe.running.data_digests import DataDigests
from iadbe.running.store import Store
from iadbe.seeds import run_id, seed_for
from iadbe.setting import Setting, categories_in
from iadbe.types import UNLABELLED_NOTE, RunSpec

KEYS = ("detectors", "data", "settings", "seeds", "protocol", "budget", "precision", "accumulate", "metrics")


@dataclass(frozen=True, slots=True)
class Skip:
    """A cell of the grid that cannot run."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a grid, its skipped cells, and notes."""

    runs: tuple[RunSpec, ...] = ()
    skipped: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Data:
    """One dataset of the grid, opened."""

    name: str
    params: dict[str, Any]
    place: dict[str, str]
    dataset: Dataset
    index: Index
    categories: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    digests: dict[Any, str] = field(default_factory=dict)  # by categories; "": that of version 0.1
    task_categories: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)

    def digest(self, categories: tuple[str, ...]) -> str:
        """Return the digest of some categories."""
        if categories not in self.digests:
            self.digests[categories] = self.dataset.digest(categories)
        return self.digests[categories]

    def whole_digest(self) -> str:
        """Return the digest of version 0.1, of all categories together."""
        if "" not in self.digests:
            self.digests[""] = self.dataset.whole_digest()
        return self.digests[""]


def expand(grid: Mapping[str, Any], store: Store | None = None) -> Plan:
    """Plan a grid. Runs that the ``store`` has under an earlier digest of the same data get that digest.

    Keys: ``detectors``, ``data`` (names, folders, files, or mappings with ``name`` and parameters, which may also
    stand in ``params``; ``categories`` chooses among a dataset's, ``sweep: {parameter: [values]}`` multiplies an
    entry), ``settings`` (vanilla), ``seeds`` ([0]), ``protocol`` (uniform), ``budget`` (a time for each fit, such as
    10m), ``precision`` (fp32) and ``accumulate`` (1) of training, ``metrics`` (the usual ones).
    """
    for key in grid:
        if key not in KEYS:
            raise BadConfig(f"a grid has no key {key!r}.{did_you_mean(key, KEYS)} It has: {', '.join(KEYS)}.")
    detectors = [_named("detectors", e) for e in _entries(grid, "detectors")]
    settings = [_named("settings", e) for e in _entries(grid, "settings", "vanilla")]
    opened = [_open(e) for e in _entries(grid, "data")]
    seeds = [_seed(s) for s in _list(grid.get("seeds", 0))]
    protocol = protocol_of(grid)
    metrics = tuple(dict.fromkeys(str(m) for m in _list(grid.get("metrics") or [])))
    for name in metrics:
        parse(name)
    digests = DataDigests(store) if store else None
    runs: dict[str, RunSpec] = {}
    skipped: list[Skip] = []
    for (detector, det_params), data, (setting, set_params) in product(detectors, opened, settings):
        wanted = metrics or (*DEFAULT, *data.dataset.official_metrics)
        cell = _Cell(detector, det_params, data, setting, set_params, protocol, wanted)
        if reason := incompatibility(card("detectors", detector), data.dataset, cell.make_setting()):
            skipped.append(Skip(f"{detector} on {data.name}, {setting}", reason))
            continue
        for seed, task in product(seeds, cell.tasks()):
            spec = cell.spec(task, seed)
            spec = digests.adopted(spec, data.whole_digest) if digests else spec
            if reason := cell.reason_to_skip(spec):
                skipped.append(Skip(f"{detector} on {data.name} {task}, {setting}", reason))
            else:
                runs[run_id(spec)] = spec
    # runs that need most layers of the backbone go first: later ones find their features in the feature store
    order = sorted(runs.values(), key=lambda spec: -len(_layers(spec)))
    return Plan(tuple(order), tuple(dict.fromkeys(skipped)), tuple(n for d in opened for n in d.notes))


def class_names_in(grid: Mapping[str, Any]) -> Iterable[Any]:
    """Yield the names of detectors, data, settings and metrics that a grid holds."""
    for key in ("detectors", "data", "settings", "metrics"):
        for entry in _list(grid.get(key) or ()):
            yield entry.get("name") if isinstance(entry, Mapping) else entry


def _layers(spec: RunSpec) -> set[int]:
    """Return the layers of a frozen backbone that a run's detector uses."""
    named = (v for k, v in spec.detector_params.items() if k.endswith(("layer", "layers")))
    return {layer for value in named for layer in _list(value) if "backbone" in spec.detector_params}


def incompatibility(detector: Card, dataset: Dataset, setting: Setting) -> str:
    """Return why a detector cannot run on this data in this setting, or the empty string."""
    if lacking := _lacking(detector.get("needs"), dataset, setting):
        return lacking
    if missing := {d for d in setting.demanded() if not set(d.split(" or ")) & detector.get("can")}:
        return f"the setting demands {', '.join(sorted(missing))}, which the detector cannot do"
    return ""


def _lacking(needs: frozenset[str], dataset: Dataset, setting: Setting) -> str:
    if not (missing := needs - dataset.gives - setting.gives):
        return ""
    labels = " The settings semi and supervised label anomalies." if "labels" in missing else ""
    return f"it needs {', '.join(sorted(missing))}, which neither the data nor the setting gives.{labels}"


@dataclass(frozen=True)
class _Cell:
    """One detector on one dataset in one setting."""

    detector: str
    detector_params: dict[str, Any]
    data: _Data
    setting: str
    setting_params: dict[str, Any]
    protocol: Protocol
    metrics: tuple[str, ...]

    def make_setting(self) -> Setting:
        made: Setting = load("settings", self.setting)(**self.setting_params)
        return made

    def tasks(self) -> tuple[str, ...]:
        return self.make_setting().tasks(self.data.categories, self.data.dataset.categories)

    def spec(self, task: str, seed: int) -> RunSpec:
        own = card("detectors", self.detector)
        paper: dict[str, Any] = {}
        if self.protocol.kind == "paper":
            by_category = own.get("paper_by_category", {}).get(f"{self.data.name}/{task}", {})
            paper = {**own.get("paper_params", {}), **by_category}
        params, place = without_paths(complete(own, {**paper, **self.detector_params}))
        cards = {
            "detector": own,
            "dataset": card("datasets", self.data.name),
            "setting": card("settings", self.setting),
        }
        versions = {key: int(c.get("version", 1)) for key, c in cards.items()}
        versions |= {m: type(parse(m)[1]).version for m in self.metrics}
        named = {"detector": self.detector, "dataset": self.data.name, "setting": self.setting}
        # edited code of one's own is another run; what the registries hold has versions
        versions |= {f"{axis}_code": code_digest.of_class(name) for axis, name in named.items() if ":" in name}
        return RunSpec(
            detector=self.detector,
            dataset=self.data.name,
            setting=self.setting,
            task=task,
            seed=seed,
            protocol=str(self.protocol),
            detector_params=params,
            dataset_params=self.data.params,
            setting_params=complete(card("settings", self.setting), self.setting_params),
            metrics=self.metrics,
            data=self.data.digest(self._categories(task)),
            versions=versions,
            place={**self.data.place, **place},
        )

    def _categories(self, task: str) -> tuple[str, ...]:
        """Return the categories whose images a task trains on or tests; none where the cell will be skipped."""
        key = (self.setting, str(sorted(self.setting_params.items())), task)
        if key not in self.data.task_categories:
            try:
                steps = self.make_setting().steps(task, self.data.index, Random(0))
            except BadConfig:
                steps = ()
            self.data.task_categories[key] = categories_in(steps)
        return self.data.task_categories[key]

    def reason_to_skip(self, spec: RunSpec) -> str:
        """Return why the task cannot run, or the empty string. No image is read."""
        needs = needs_with(card("detectors", self.detector), spec.detector_params)
        if lacking := _lacking(needs, self.data.dataset, self.make_setting()):
            return lacking
        try:
            steps = self.make_setting().steps(spec.task, self.data.index, Random(seed_for(spec, "split")))
        except BadConfig as error:
            return str(error)
        if any(
            not any(step.shards) and "zero-shot" not in card("detectors", self.detector).get("can") for step in steps
        ):
            return "there is no good training image"
        return "" if any(test for step in steps for test in step.tests.values()) else "there is no test image"


def protocol_of(grid: Mapping[str, Any]) -> Protocol:
    """Return the protocol of a grid, with its keys ``budget``, ``precision`` and ``accumulate``."""
    protocol, plain = Protocol.parse(grid.get("protocol", "uniform")), Protocol()
    readers: dict[str, Callable[[str], Any]] = {"budget": Budget.parse, "precision": str, "accumulate": _count}
    for key, read in readers.items():
        if (text := grid.get(key)) in (None, ""):
            continue
        value = read(str(text))
        if getattr(protocol, key) not in (getattr(plain, key), value):
            raise BadConfig(f"the protocol {protocol} has another {key} than {text!r}. Give one of them.")
        protocol = replace(protocol, **{key: value})
    return protocol


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text.strip()):
        raise BadConfig(f"accumulate is a number of batches, not {text!r}.")
    return int(text)


def _seed(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", text):
        raise BadConfig(f"a seed is a whole number, not {repr(value)[:40]}; 0 is the smallest.")
    return int(text)


def _entries(grid: Mapping[str, Any], key: str, default: str | None = None) -> list[dict[str, Any]]:
    """Return a grid's axis as mappings with ``name``, ``params`` and ``categories``, sweeps multiplied out."""
    given = grid.get(key) or default
    if not given:
        raise BadConfig(f"the grid needs {key}. For example: {key}: [{'toy' if key == 'data' else 'patchcore'}]")
    return [entry for e in _list(given) for entry in _swept(key, {"name": e} if isinstance(e, str) else e)]


def _swept(key: str, given: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise BadConfig(f"each of {key} is a name, or a mapping such as {{name: padim, dims: 50}}, not {given!r}.")
    apart = ("name", "params", "sweep", *(("categories",) if key == "data" else ()))
    inner, sweep = given.get("params") or {}, given.get("sweep") or {}
    if not isinstance(inner, Mapping):
        raise BadConfig(f"params of {given['name']} must be names with values, not {inner!r}.")
    if not isinstance(sweep, Mapping) or not all(_list(v) for v in sweep.values()):
        raise BadConfig(f"sweep of {given['name']} must be names with lists, such as {{dims: [50, 100]}}.")
    params = {**inner, **{str(k): v for k, v in given.items() if k not in apart}}
    for values in product(*(_list(v) for v in sweep.values())):
        swept = {**params, **dict(zip(sweep, values, strict=True))}
        yield {"name": given["name"], "params": swept, "categories": given.get("categories") if key == "data" else None}


def _named(registry: str, entry: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    params = entry["params"]
    return entry["name"], {k: v for k, v in complete(card(registry, entry["name"]), params).items() if k in params}


def _open(entry: dict[str, Any]) -> _Data:
    """Open a dataset and read its index."""
    found = resolve.find(entry["name"], **entry["params"])
    params = complete(card("datasets", found.name), found.params)
    dataset = resolve.make(found.name, params)
    place = {"root": str(dataset.root)} if params.pop("root", "") else {}
    regions = {key: params.pop(key, "") for key in ("roi", "ignore")}  # the digest holds their content
    place |= {key: str(region_files.located(dataset.root, value)) for key, value in regions.items() if value}
    index = Index(dataset.samples())
    try:
        chosen = dataset.chosen_categories([str(c) for c in _list(entry["categories"] or [])])
    except UnknownName as error:
        raise UnknownName(f"{found.name}: {error}") from error
    notes = (*found.notes, *(n for c in chosen for n in (*_warnings(index, c), *_counted(dataset, index, c))))
    return _Data(found.name, params, place, dataset, index, chosen, notes)


def _warnings(index: Index, category: str) -> Iterable[str]:
    train, test = index.train(category), index.test(category)
    defects = index.anomalies(category)
    if len(train) == 1:
        yield f"{category}: there is one training image; expect little."
    if any(not s.is_labelled for s in test):
        yield f"{category}: {UNLABELLED_NOTE}"
        return
    if test and not defects:
        yield f"{category}: the test split has no defects, so no metric is defined; scores are kept."
    if defects and len(defects) == len(test):
        yield f"{category}: the test split has no good images, so no image metric is defined."
    if defects and not any(s.mask for s in defects):
        yield f"{category}: there are no masks, so there are no pixel metrics."


def _counted(dataset: Dataset, index: Index, category: str) -> Iterable[str]:
    """Say how much of the images counts, where ``roi`` or ``ignore`` is given."""
    sample = next((s for s in index.samples if s.category == category), None)
    if sample is None or dataset.region_files is None:
        return
    if not dataset.region_files.is_common:
        yield f"{category}: images have regions of their own."
    elif (region := dataset.common_region(sample)) is not None:
        yield f"{category}: {100 * region.mean():.3g} % of an image's pixels count; the rest is ignored."


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def read(path: Path) -> dict[str, Any]:
    """Read a grid from a YAML file."""
    import yaml

    try:
        grid = load_yaml(path)
    except FileNotFoundError as error:
        raise BadConfig(f"there is no grid file {path}. `iadbe benchmark --help` shows what one looks like.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        hint = yaml_hint(error) if isinstance(error, yaml.YAMLError) else ""
        raise BadConfig(f"{path} is not a grid: {' '.join(str(error).split())}{hint}") from error
    if not isinstance(grid, dict):
        raise BadConfig(f"{path} is not a grid: it needs keys such as detectors: and data:.")
    return grid
