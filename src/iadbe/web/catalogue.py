"""Routes for registered detectors, settings and metrics: their cards, and a JSON Schema of their parameters."""

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
from iadbe.web import grid_request
from iadbe.web.state import Server, ServerState

router = APIRouter(tags=["detectors"])
EntryName = Annotated[str, Path(max_length=80)]


class CatalogueEntry(BaseModel):
    """A registered detector or setting."""

    name: str
    summary: str
    about: dict[str, Any] = Field(description="class attributes: paper, year, kind, needs, can …")
    runs: int = Field(description="in the store")


class CatalogueDetail(CatalogueEntry):
    """A registered detector or setting, with documentation, parameters and results."""

    doc: str = Field(description="docstring of its module")
    form: dict[str, Any] = Field(description="JSON Schema of its parameters")
    results: list[dict[str, Any]] = Field([], description="its means by dataset, setting, protocol and metric")


class MetricCard(BaseModel):
    """A metric."""

    name: str
    label: str
    lower_is_better: bool
    default: bool = Field(description="computed by default")


@router.get("/detectors", response_model=list[CatalogueEntry])
def detectors(server: Server) -> Any:
    """List the detectors."""
    return _list(server, "detectors")


@router.get("/detectors/{name}", response_model=CatalogueDetail)
def detector(
    server: Server, name: EntryName, results: Annotated[bool, Query(description="also its results")] = True
) -> Any:
    """Return a detector's card, the schema of its parameters, and its mean results in every comparison."""
    return {**_detail(server, "detectors", name), "results": results_of(server, name) if results else []}


@router.get("/settings", response_model=list[CatalogueEntry])
def settings(server: Server) -> Any:
    """List the settings."""
    return _list(server, "settings")


@router.get("/settings/{name}", response_model=CatalogueDetail)
def setting(server: Server, name: EntryName) -> Any:
    """Return a setting's card and the schema of its parameters."""
    return _detail(server, "settings", name)


@router.get("/metrics", response_model=list[MetricCard])
def metrics(server: Server) -> Any:
    """List the default metrics and those of stored runs."""
    names = dict.fromkeys([*DEFAULT, *server.run_cache.choices()["metric"]])
    return [
        {"name": n, "label": label(n), "lower_is_better": lower_is_better(n), "default": n in DEFAULT} for n in names
    ]


def results_of(server: ServerState, detector: str) -> list[dict[str, Any]]:
    """Return a detector's means, one entry for each comparison it takes part in."""
    now = server.run_cache.now()
    datasets = {s.result.spec.dataset for s in now.runs.values() if s.result.spec.detector == detector}
    found = []
    for comparison in server.run_cache.comparisons(RunQuery(tuple(sorted(datasets)))) if datasets else ():
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
    """Return a JSON Schema of a card's parameters, with the values that the command line accepts."""
    properties = {p.name: _property(card, p) for p in card.parameters}
    required = [p.name for p in card.parameters if p.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@cache
def _card(registry_name: str, name: str) -> Card:
    return registry.card(registry_name, name)


def _property(card: Card, parameter: Parameter) -> dict[str, Any]:
    try:
        found = TypeAdapter(type_of(parameter)).json_schema()
    except PydanticSchemaGenerationError:
        found = {"type": "string"}
    found |= {"description": parameter.doc, "x-takes": describe_type(parameter.annotation)}
    if parameter.name in (ranges := card.get("ranges") or {}):
        found |= dict(zip(("minimum", "maximum"), ranges[parameter.name], strict=True))
    if grid_request.is_file(parameter) and parameter.name == "weights":
        found |= {"enum": sorted({plain(parameter.default), *grid_request.WEIGHTS})}
    elif grid_request.is_file(parameter):
        found |= {"readOnly": True}  # only the operator can set it
    return found if parameter.required else {**found, "default": plain(parameter.default)}


def class_attributes(card: Card) -> dict[str, Any]:
    """Return a card's class attributes as JSON values."""
    return {
        name: sorted(value) if isinstance(value, (set, frozenset)) else plain(value)
        for name, value in card.attributes.items()
        if not name.startswith("_")
    }


def _list(server: ServerState, registry_name: str) -> list[dict[str, Any]]:
    runs = server.run_cache.now().counts(registry_name[:-1])
    return [_entry(_card(registry_name, name), runs[name]) for name in registry.names(registry_name)]


def _entry(card: Card, runs: int) -> dict[str, Any]:
    return {"name": card.name, "summary": card.summary, "about": class_attributes(card), "runs": runs}


def _detail(server: ServerState, registry_name: str, name: str) -> dict[str, Any]:
    card = registered_card(registry_name, name)
    runs = server.run_cache.now().counts(registry_name[:-1])[name]
    return {**_entry(card, runs), "doc": card.doc, "form": form(card)}


def registered_card(registry_name: str, name: str) -> Card:
    """Return the card of a registered name. Never imports a class of another module, whatever the name."""
    if ":" in name:
        raise UnknownName(f"no {registry_name[:-1]} is named {name!r}.")
    return _card(registry_name, registry.check(registry_name, name))
