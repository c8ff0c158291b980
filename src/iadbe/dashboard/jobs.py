"""The jobs: all of them, and one as it goes on, with progress, loss, memory and log."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.jobs.queue import STATES, Job
from iadbe.web import jobs as known
from iadbe.web.house import Here

router = APIRouter()
PAGE = 50
State = Literal["", "queued", "running", "done", "failed", "stopped"]


@router.get("/jobs")
def jobs(house: Here, state: State = "", offset: Annotated[int, Query(ge=0, le=10**9)] = 0) -> HTMLResponse:
    """List the jobs, the newest first."""
    found, total = house.queue.listed((state,) if state else (), PAGE, offset)
    counts = {s: house.queue.listed((s,), 1)[1] for s in STATES}
    shown = [{**known.summary(job), "about": about(job)} for job in found]
    return page(
        "jobs", house, title="Jobs", at="/jobs", jobs=shown, total=total, counts=counts, state=state,
        offset=offset, page=PAGE,
    )  # fmt: skip


@router.get("/jobs/{job}")
def job(house: Here, job: known.JobName) -> HTMLResponse:
    """Show one job."""
    found = house.queue.get(job)
    asked = yaml.safe_dump(dict(found.asked), sort_keys=False, allow_unicode=True)
    options = {k: v for k, v in found.how.items() if k != "command"}
    return page(
        "job", house, title=found.title or about(found) or f"Job {found.id}", at="/jobs", job=known.summary(found),
        about=about(found), asked=asked, options=options,
    )  # fmt: skip


def about(job: Job) -> str:
    """Say in a few words what a job was asked for."""

    def names(key: str) -> str:
        given = job.asked.get(key) or []
        given = given if isinstance(given, list) else [given]
        found = [str(e.get("name", "?") if isinstance(e, dict) else e) for e in given]
        return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")

    detectors, data = names("detectors"), names("data")
    return f"{detectors} on {data}" if detectors and data else ""
