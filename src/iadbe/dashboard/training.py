"""The training monitor: what trains now, how long fits take, how large models are, and what the data is made of."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.dashboard.jobs import about
from iadbe.web import jobs, legacy
from iadbe.web.house import Here

router = APIRouter()
NOW = 5  # jobs under way or waiting that are shown


@router.get("/training")
def training(house: Here, dataset: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Show the original's charts, from the runs of the store, and what is under way."""
    lines = legacy.line_data(house)
    names = [one["label"] for one in lines["datasets"]]
    shown = [one for one in lines["datasets"] if dataset in ("", one["label"])]
    times = {label: [one["data"][n] for one in shown] for n, label in enumerate(lines["labels"])}
    times = {label: row for label, row in times.items() if any(v is not None for v in row)}
    sizes = {one["modelName"]: size for one in legacy.bar_data(house) if (size := _megabytes(one["fileSize"]))}
    live, total = house.queue.listed(("running", "queued"), NOW)
    charts = {
        "times": {"detectors": list(times), "data": [{"name": one["label"], "values": [
            one["data"][lines["labels"].index(label)] for label in times]} for one in shown]},
        "sizes": dict(sorted(sizes.items(), key=lambda item: item[1])),
        "shares": legacy.pie_data(house),
        "kinds": legacy.advance_pie_model(house),
        "best": legacy.radar_data(house),
    }  # fmt: skip
    return page(
        "training", house, title="Training monitor", at="/training", names=names, chosen=dataset, times=times,
        shown=[one["label"] for one in shown], charts=charts, live=[_live(job) for job in live], waiting=total,
        own=legacy.advance_pie_dataset(house),
    )  # fmt: skip


def _megabytes(text: str) -> float:
    """Read a size as the original's front end wrote it."""
    return float(text.removesuffix("MB"))


def _live(job: Any) -> dict[str, Any]:
    return {**jobs.summary(job), "about": about(job)}
