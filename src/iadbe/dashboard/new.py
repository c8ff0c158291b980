"""A new run: data, detectors and settings are chosen with their parameters; the plan is shown, and started."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.errors import UnknownName
from iadbe.web import catalogue, data
from iadbe.web.house import Here, House

router = APIRouter()
Names = Annotated[list[str], Query(max_length=20)]
USUAL = "vanilla"


@router.get("/new")
def new(
    house: Here,
    detector: Names = [],  # noqa: B006  (FastAPI copies it)
    data_: Annotated[list[str], Query(alias="data", max_length=20)] = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    job: Annotated[str, Query(max_length=40, description="begin with what this job was asked for")] = "",
) -> HTMLResponse:
    """Show the form, filled with what the address names or with what a job was asked for."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for entry in catalogue.detectors(house):
        kinds.setdefault(str(entry["about"].get("kind") or "other"), []).append(entry)
    grid = {"detectors": detector, "data": data_, "settings": setting or [USUAL]}
    asked = _asked(house, job) if job else {"grid": grid, "options": {}, "title": ""}
    usable = [entry for entry in data.datasets(house) if entry["usable"]]
    return page(
        "new", house, title="New run", at="/new", data=usable, kinds=dict(sorted(kinds.items())),
        settings=sorted(catalogue.settings(house), key=lambda s: s["name"] != USUAL), asked=asked,
        upload=house.rules.upload,
    )  # fmt: skip


def _asked(house: House, job: str) -> dict[str, Any]:
    try:
        found = house.queue.get(job)
    except UnknownName as error:
        raise UnknownName(f"{error} It may have been removed.") from error
    options = {k: v for k, v in found.how.items() if k != "command"}
    return {"grid": dict(found.asked), "options": options, "title": found.title}
