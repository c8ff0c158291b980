"""The training monitor: jobs under way, fit times, model sizes and images by dataset."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.jobs import summary_text
from iadbe.dashboard.layout import page
from iadbe.web import jobs, legacy
from iadbe.web.state import Server

router = APIRouter()
MAX_JOBS = 5  # unfinished jobs shown


@router.get("/training")
def training(server: Server, dataset: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Render the charts of the original IADBE server from the store's runs, and the unfinished jobs."""
    lines = legacy.line_data(server)
    names = [one["label"] for one in lines["datasets"]]
    shown = [one for one in lines["datasets"] if dataset in ("", one["label"])]
    times = {label: [one["data"][n] for one in shown] for n, label in enumerate(lines["labels"])}
    times = {label: row for label, row in times.items() if any(v is not None for v in row)}
    sizes = {one["modelName"]: size for one in legacy.bar_data(server) if (size := _megabytes(one["fileSize"]))}
    live, total = server.queue.list_jobs(("running", "queued"), MAX_JOBS)
    charts = {
        "times": {"detectors": list(times), "data": [{"name": one["label"], "values": [
            one["data"][lines["labels"].index(label)] for label in times]} for one in shown]},
        "sizes": dict(sorted(sizes.items(), key=lambda item: item[1])),
        "shares": legacy.pie_data(server),
        "kinds": legacy.advance_pie_model(server),
        "best": legacy.radar_data(server),
    }  # fmt: skip
    return page(
        "training", server, title="Training monitor", at="/training", names=names, chosen=dataset, times=times,
        shown=[one["label"] for one in shown], charts=charts, live=[_live(job) for job in live], waiting=total,
        own=legacy.advance_pie_dataset(server),
    )  # fmt: skip


def _megabytes(text: str) -> float:
    """Read a size as the original's front end wrote it."""
    return float(text.removesuffix("MB"))


def _live(job: Any) -> dict[str, Any]:
    return {**jobs.summary(job), "about": summary_text(job)}
