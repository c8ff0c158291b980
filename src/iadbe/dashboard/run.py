"""The page of one run: parameters, metrics, thresholds, images, costs and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import PAGES, page
from iadbe.results.names import format_value, setting_name
from iadbe.results.style import label, lower_is_better
from iadbe.types import RunResult
from iadbe.web.reproduction import command, non_default
from iadbe.web.runs import Name
from iadbe.web.runs import run as run_detail
from iadbe.web.state import Server

router = APIRouter()
MIB = 2**20
REGISTRIES = (("detector", "detectors"), ("dataset", "datasets"), ("setting", "settings"))
PHASES = {"read": "reading", "fit": "fitting", "predict": "scoring", "metrics": "metrics", "total": "in all"}


class Parameter(NamedTuple):
    """The value of one parameter."""

    owner: str
    name: str
    text: str
    is_default: bool


@router.get("/runs/{name}")
def run(server: Server, name: Name) -> HTMLResponse:
    """Render the page of a run."""
    about, result = run_detail(server, name), server.run_cache.loaded(name)
    spec = result.spec
    tests = list(dict.fromkeys(r.test for r in result.rows))
    metrics = list(dict.fromkeys(r.metric for r in result.rows))
    steps = sorted({r.step for r in result.rows})
    return page(
        "run", server, title=f"{spec.detector} on {spec.task}", at="/runs", run=about, spec=spec,
        setting=setting_name(spec), result=result, parameters=parameters(result), tests=tests, steps=steps,
        metrics=[(m, label(m), lower_is_better(m)) for m in metrics],
        values={(r.step, r.test, r.metric): r.value for r in result.rows}, stats=_stats(about),
        costs=_costs(result), environment=_environment(result), command=command(result),
        typed=str(result.environment.get("command", "")), inspect=any(address == "/inspect" for address, _ in PAGES),
        view={"run": about["id"], "images": about["has_images"], "failed": bool(about["error"])},
    )  # fmt: skip


def parameters(result: RunResult) -> list[Parameter]:
    """Return every parameter of detector, dataset and setting."""
    found = []
    for kind, registry_name in REGISTRIES:
        name, params = getattr(result.spec, kind), getattr(result.spec, f"{kind}_params")
        non_default_names = non_default(registry_name, name, params)
        found += [Parameter(name, k, format_value(v), k not in non_default_names) for k, v in sorted(params.items())]
    return found


def _stats(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = about["values"]
    return [(label(m), "—" if v is None else f"{v:.3f}") for m, v in values.items()]


def _costs(result: RunResult) -> list[tuple[str, str]]:
    found = [(f"Seconds {PHASES.get(k, k)}", _written(v)) for k, v in result.seconds.items()]
    found += [("Milliseconds per image", _written(result.latency_ms))] if result.latency_ms > 0 else []
    found += [(f"Memory, {k}", f"{_written(v / MIB)} MB") for k, v in result.memory.items() if v]
    found += [(f"Images {k} by the backbone", str(v)) for k, v in result.features.items() if v]
    return found


def _environment(result: RunResult) -> list[tuple[str, str]]:
    found = []
    for key, value in result.environment.items():
        if isinstance(value, Mapping):
            found.append((key, ", ".join(f"{k} {v}" for k, v in sorted(value.items()))))
        elif key != "command":
            found.append((key, str(value)))
    return [*found, *([("weights", result.weights)] if result.weights else [])]


def _written(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
