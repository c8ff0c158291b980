"""The page that starts new runs: a form for data, detectors and settings with their parameters, and the plan."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.errors import BadConfig, UnknownName
from iadbe.jobs import exports
from iadbe.running.plan import protocol_of
from iadbe.web import catalogue, data, protocols
from iadbe.web.state import Server, ServerState

router = APIRouter()
Names = Annotated[list[str], Query(max_length=20)]
DEFAULT_SETTING = "vanilla"


@router.get("/new")
def new(
    server: Server,
    detector: Names = [],  # noqa: B006  (FastAPI copies it)
    data_: Annotated[list[str], Query(alias="data", max_length=20)] = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    job: Annotated[str, Query(max_length=40, description="fill the form with this job's grid")] = "",
) -> HTMLResponse:
    """Render the form, filled from the address or from an earlier job."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for entry in catalogue.detectors(server):
        kinds.setdefault(str(entry["about"].get("kind") or "other"), []).append(entry)
    grid = {"detectors": detector, "data": data_, "settings": setting or [DEFAULT_SETTING]}
    request: dict[str, Any] = {"grid": grid, "options": {}, "title": ""}
    request = _request_of(server, job) if job else request
    request["protocol"] = _protocol_of(request["grid"])
    usable = [entry for entry in data.datasets(server) if entry["usable"]]
    return page(
        "new_run", server, title="New run", at="/new", data=usable, kinds=dict(sorted(kinds.items())),
        settings=sorted(catalogue.settings(server), key=lambda s: s["name"] != DEFAULT_SETTING), request=request,
        upload=server.policy.upload,
    )  # fmt: skip


def _protocol_of(grid: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a grid's protocol with its own keys of budget, precision and batches."""
    try:
        return protocols.fields_of(protocol_of(grid))
    except BadConfig as error:  # of an earlier version
        return {"error": str(error)}


def _request_of(server: ServerState, job: str) -> dict[str, Any]:
    try:
        found = server.queue.get(job)
    except UnknownName as error:
        raise UnknownName(f"{error} It may have been removed.") from error
    if exports.is_export(found.grid):
        raise BadConfig(f"the job {job} exports a model: repeat it on the page of the run.")
    options = {k: v for k, v in found.how.items() if k != "command"}
    return {"grid": dict(found.requested), "options": options, "title": found.title}
