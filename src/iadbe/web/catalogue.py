"""What can be run: the cards of detectors, settings and metrics, and a JSON Schema of their parameters for forms."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError

from iadbe import registry
from iadbe.errors import UnknownName
from iadbe.metric import DEFAULT
from iadbe.parameters import describe_type, plain, type_of
from iadbe.registry import Card, Parameter
from iadbe.results.index import RunQuery
from iadbe.results.style import label, lower_is_better
from iadbe.web import asking
from iadbe.web.house import Here, House

router = APIRouter(tags=["detectors"])
ShelfName = Annotated[str, Path(max_length=80)]


class Described(BaseModel):
    """Something on a shelf."""

    name: str
    summary: str
    about: dict[str, Any] = Field(description="what its class says: paper, year, kind, needs, can …")
    runs: int = Field(description="in the store")


class Whole(Described):
    """The same with everything that a form and a page need."""

    doc: str
    form: dict[str, Any] = Field(description="JSON Schema of its parameters")
    results: list[dict[str, Any]] = Field([], description="its means by dataset, setting, protocol and metric")


class MetricCard(BaseModel):
    """A metric that runs may be asked for."""

    name: str
    label: str
    lower_is_better: bool
    usual: bool = Field(description="computed where nothing else is asked for")


@router.get("/detectors", response_model=list[Described])
def detectors(house: Here) -> Any:
    """List the detectors."""
    return _list(house, "detectors")


@router.get("/detectors/{name}", response_model=Whole)
def detector(
    house: Here, name: ShelfName, results: Annotated[bool, Query(description="also its results")] = True
) -> Any:
    """Return a detector's card, the form of its parameters, and its results everywhere."""
    return {**_whole(house, "detectors", name), "results": results_of(house, name) if results else []}


@router.get("/settings", response_model=list[Described])
def settings(house: Here) -> Any:
    """List the settings."""
    return _list(house, "settings")


@router.get("/settings/{name}", response_model=Whole)
def setting(house: Here, name: ShelfName) -> Any:
    """Return a setting's card and the form of its parameters."""
    return _whole(house, "settings", name)


@router.get("/metrics", response_model=list[MetricCard])
def metrics(house: Here) -> Any:
    """List the metrics: those that are usual, and those that runs have."""
    names = dict.fromkeys([*DEFAULT, *house.library.choices()["metric"]])
    return [{"name": n, "label": label(n), "lower_is_better": lower_is_better(n), "usual": n in DEFAULT} for n in names]


def results_of(house: House, detector: str) -> list[dict[str, Any]]:
    """Return a detector's means, one entry for each comparison that it stands in."""
    now = house.library.now()
    datasets = {s.result.spec.dataset for s in now.runs.values() if s.result.spec.detector == detector}
    found = []
    for comparison in house.library.comparisons(RunQuery(tuple(sorted(datasets)))) if datasets else ():
        for entry in comparison.entries:
            if entry.detector != detector:
                continue
            means = {m: comparison.mean(entry, m) for m in comparison.metrics}
            values = {m: mean.value for m, mean in means.items() if math.isfinite(mean.value)}
            where = {"dataset": comparison.dataset, "setting": comparison.setting, "protocol": comparison.protocol}
            counts = {"runs": len(entry.runs), "failed": len(entry.failed)}
            costs = {c: entry.cost(c) for c in ("latency_ms", "fit_seconds", "memory_mb")}
            costs = {c: v for c, v in costs.items() if math.isfinite(v)}
            found.append({**where, "name": entry.name, "values": values, **counts, **costs})
    return found


def form(card: Card) -> dict[str, Any]:
    """Return a JSON Schema of the parameters that a card tells, as the command line takes them."""
    properties = {p.name: _property(p) for p in card.parameters}
    required = [p.name for p in card.parameters if p.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@cache
def _card(shelf: str, name: str) -> Card:
    return registry.card(shelf, name)


def _property(parameter: Parameter) -> dict[str, Any]:
    try:
        found = TypeAdapter(type_of(parameter)).json_schema()
    except PydanticSchemaGenerationError:
        found = {"type": "string"}
    found |= {"description": parameter.doc, "x-takes": describe_type(parameter.annotation)}
    if asking.is_file(parameter) and parameter.name == "weights":
        found |= {"enum": sorted({plain(parameter.default), *asking.WEIGHTS})}
    elif asking.is_file(parameter):
        found |= {"readOnly": True}  # for who starts the server
    return found if parameter.required else {**found, "default": plain(parameter.default)}


def about(card: Card) -> dict[str, Any]:
    """Return a card's attributes as JSON knows them."""
    return {
        name: sorted(value) if isinstance(value, (set, frozenset)) else plain(value)
        for name, value in card.attributes.items()
        if not name.startswith("_")
    }


def _list(house: House, shelf: str) -> list[dict[str, Any]]:
    runs = house.library.now().counts(shelf[:-1])
    return [_described(_card(shelf, name), runs[name]) for name in registry.names(shelf)]


def _described(card: Card, runs: int) -> dict[str, Any]:
    return {"name": card.name, "summary": card.summary, "about": about(card), "runs": runs}


def _whole(house: House, shelf: str, name: str) -> dict[str, Any]:
    card = known(shelf, name)
    runs = house.library.now().counts(shelf[:-1])[name]
    return {**_described(card, runs), "doc": card.doc, "form": form(card)}


def known(shelf: str, name: str) -> Card:
    """Return the card of a name on a shelf. A class of any other module is not looked for: that would import it."""
    if ":" in name:
        raise UnknownName(f"no {shelf[:-1]} is named {name!r}.")
    return _card(shelf, registry.check(shelf, name))
