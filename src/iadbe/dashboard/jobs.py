"""The pages of the jobs: the list, and each with progress, losses, memory and log."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.jobs import exports
from iadbe.jobs.queue import STATES, Job
from iadbe.web import jobs as jobs_api
from iadbe.web.state import Server

router = APIRouter()
PAGE = 50
State = Literal["", "queued", "running", "done", "failed", "stopped"]


@router.get("/jobs")
def jobs(server: Server, state: State = "", offset: Annotated[int, Query(ge=0, le=10**9)] = 0) -> HTMLResponse:
    """Render the list of jobs, the newest first."""
    found, total = server.queue.list_jobs((state,) if state else (), PAGE, offset)
    counts = {s: server.queue.list_jobs((s,), 1)[1] for s in STATES}
    shown = [{**jobs_api.summary(job), "about": summary_text(job)} for job in found]
    return page(
        "jobs", server, title="Jobs", at="/jobs", jobs=shown, total=total, counts=counts, state=state,
        offset=offset, page=PAGE,
    )  # fmt: skip


@router.get("/jobs/{job}")
def job(server: Server, job: jobs_api.JobName) -> HTMLResponse:
    """Render the page of one job."""
    found = server.queue.get(job)
    grid = yaml.safe_dump(dict(found.requested), sort_keys=False, allow_unicode=True)
    options = {k: v for k, v in found.how.items() if k != "command"}
    return page(
        "job", server, title=found.title or summary_text(found) or f"Job {found.id}", at="/jobs",
        job=jobs_api.summary(found),
        about=summary_text(found), grid=grid, options=options,
        export=exports.request_of(found.grid) if exports.is_export(found.grid) else None,
    )  # fmt: skip


def summary_text(job: Job) -> str:
    """Summarize a job's grid in a few words."""

    def names(key: str) -> str:
        given = job.requested.get(key) or []
        given = given if isinstance(given, list) else [given]
        found = [str(e.get("name", "?") if isinstance(e, dict) else e) for e in given]
        return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")

    detectors, data = names("detectors"), names("data")
    return f"{detectors} on {data}" if detectors and data else ""
