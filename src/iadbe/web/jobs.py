"""Routes for jobs: plan a grid, queue it, follow it and stop it. Workers run jobs in their own processes."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

import yaml
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from iadbe.errors import BadConfig
from iadbe.jobs import exports
from iadbe.jobs.queue import Event, Job
from iadbe.web import grid_request
from iadbe.web.cancellation import Cancelled
from iadbe.web.drawn_regions import FOLDER
from iadbe.web.state import WRITES, Server, ServerState

router = APIRouter(tags=["jobs"])
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"  # no control characters
JobName = Annotated[str, Path(pattern="^[0-9a-f]{12}$")]


class JobRequest(BaseModel):
    """A grid to run."""

    model_config = ConfigDict(extra="forbid")

    grid: dict[str, Any] = Field(
        description="as for `iadbe benchmark`: detectors, data, settings, seeds, protocol, metrics; data by name",
        examples=[{"detectors": ["padim", {"name": "patchcore", "coreset": 0.1}], "data": ["toy"], "seeds": [0]}],
    )
    options: dict[str, Any] = Field({}, description=f"how to run: {', '.join(grid_request.OPTIONS)}")
    title: str = Field("", max_length=200, pattern=PRINTABLE)


class SkippedCell(BaseModel):
    """A cell of the grid that is skipped, and why."""

    what: str
    reason: str


class PlanSummary(BaseModel):
    """What a grid would run."""

    runs: int
    done: int = Field(description="runs that are in the store already")
    skipped: int
    notes: list[str]
    some: list[dict[str, Any]] = Field(description="the first runs")
    reasons: list[SkippedCell] = Field(description="the first skipped cells")


class JobSummary(BaseModel):
    """A job in a list."""

    id: str
    kind: Literal["grid", "export"]
    title: str
    state: Literal["queued", "running", "done", "failed", "stopped"]
    stopping: bool
    created: float = Field(description="seconds since 1970, as all times here")
    started: float | None
    ended: float | None
    worker: str
    attempt: int = Field(description="how many workers have taken it")
    total: int = Field(description="runs; 0 until a worker has planned the grid")
    already: int = Field(description="runs that were in the store before")
    done: int
    failed: int
    error: str


class JobRun(BaseModel):
    """A run of a job."""

    id: str
    state: Literal["running", "done", "failed"]
    about: dict[str, Any]
    began: float | None
    phases: dict[str, dict[str, int]] = Field(description="by phase: done, total")
    losses: list[tuple[int, float]] = Field(description="(step, loss)")
    memory: int | None = Field(description="resident memory in bytes")
    seconds: float | None
    error: str
    values: dict[str, float]


class JobDetail(JobSummary):
    """A job with its runs."""

    grid: dict[str, Any] = Field(description="of an export: `export` with run, to, precision, allow")
    options: dict[str, Any]
    command: str = Field(description="the equivalent command line, with the grid saved as job.yaml")
    plan: dict[str, Any] | None
    runs: list[JobRun]
    last_event: int


class JobList(BaseModel):
    """One page of the jobs."""

    total: int
    jobs: list[JobSummary]


@router.post("/plan", response_model=PlanSummary)
def plan_only(server: Server, request: JobRequest, cancelled: Cancelled) -> Any:
    """Plan a grid without running it."""
    return server.planner.plan(grid_request.grid(request.grid, server.data_roots), cancelled)


@router.post("/jobs", response_model=JobDetail, status_code=201, dependencies=WRITES)
def add(server: Server, request: JobRequest, cancelled: Cancelled, response: Response) -> Any:
    """Put a grid into the queue."""
    options = {"keep_model": True, **grid_request.options(request.options), "command": "iadbe benchmark job.yaml"}
    grid = grid_request.grid(request.grid, server.data_roots)
    planned = server.planner.plan(grid, cancelled)
    if not planned["runs"]:
        reasons = "; ".join(f"{s['what']}: {s['reason']}" for s in planned["reasons"][:3])
        raise BadConfig(f"there is nothing to run. {reasons}".strip())
    job = server.queue.add(grid, options, requested=request.grid, title=request.title)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return detail(server, job)


@router.get("/jobs", response_model=JobList)
def jobs(
    server: Server,
    state: Annotated[list[Literal["queued", "running", "done", "failed", "stopped"]], Query()] = [],  # noqa: B006
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Any:
    """List jobs, the newest first."""
    found, total = server.queue.list_jobs(state, limit, offset)
    return {"total": total, "jobs": [summary(job) for job in found]}


@router.get("/jobs/{job}", response_model=JobDetail)
def job(server: Server, job: JobName) -> Any:
    """Return a job with the progress of its runs."""
    return detail(server, server.queue.get(job))


@router.get("/jobs/{job}/grid", response_class=Response, responses={200: {"content": {"application/yaml": {}}}})
def grid(server: Server, job: JobName) -> Response:
    """Return a job's grid as a file for `iadbe benchmark`."""
    found = server.queue.get(job)
    if exports.is_export(found.grid):
        raise BadConfig(f"the job {job} exports a model, so it has no grid.")
    text = yaml.safe_dump(_for_command_line(found), sort_keys=False, allow_unicode=True)
    headers = {"Content-Disposition": 'attachment; filename="job.yaml"'}
    return Response(text, headers=headers, media_type="application/yaml")


def _for_command_line(job: Job) -> dict[str, Any]:
    """Return a job's grid with the files of drawn regions, from the store's folder, instead of the choice of them."""
    asked = job.requested.get("data") or []
    entries = asked if isinstance(asked, list) else [asked]
    data: list[Any] = []
    for entry, opened in zip(entries, job.grid.get("data") or entries, strict=True):
        own = {"name": entry} if isinstance(entry, str) else {k: v for k, v in entry.items() if k != "region"}
        params = opened.get("params") or {} if isinstance(opened, dict) else {}
        files = {key: PurePath(params[key]).name for key in ("roi", "ignore") if params.get(key)}
        files = {key: f"{FOLDER}/{own['name']}/{file}" for key, file in files.items()}
        data.append({**own, **files} if files or len(own) > 1 else own["name"])
    return {**job.requested, "data": data}


@router.post("/jobs/{job}/stop", response_model=JobSummary, dependencies=WRITES)
def stop(server: Server, job: JobName) -> Any:
    """Stop a job: at once if it is queued, else as soon as its worker polls. Finished runs are kept."""
    return summary(server.queue.stop(job))


@router.delete("/jobs/{job}", status_code=204, dependencies=WRITES)
def remove(server: Server, job: JobName) -> None:
    """Remove a job that has ended."""
    server.queue.remove(job)


def summary(job: Job) -> dict[str, Any]:
    """Return a job's fields for a list."""
    return {name: getattr(job, name) for name in JobSummary.model_fields if name != "kind"} | {
        "kind": exports.KEY if exports.is_export(job.grid) else "grid"
    }


def detail(server: ServerState, job: Job) -> dict[str, Any]:
    """Return a job with its plan and runs."""
    events = server.queue.events(job.id, limit=10**6)
    hidden = ("command",)
    return {
        **summary(job),
        "grid": dict(job.requested),
        "options": {k: v for k, v in job.how.items() if k not in hidden},
        "command": str(job.how.get("command", "")),
        "plan": next((e.body for e in reversed(events) if e.kind == "plan"), None),
        "runs": _runs(job, events),
        "last_event": events[-1].n if events else 0,
    }


def _runs(job: Job, events: list[Event]) -> list[dict[str, Any]]:
    """Reduce a job's events to the state of its runs, in the order of their start."""
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if not event.run:
            continue
        if event.run not in found or event.kind == "started":
            found.pop(event.run, None)
            found[event.run] = {
                "id": event.run, "state": "running", "about": {}, "began": None, "phases": {}, "losses": [],
                "memory": None, "seconds": None, "error": "", "values": {},
            }  # fmt: skip
        run, body = found[event.run], event.body
        if event.kind == "started":
            run |= {"about": body, "began": event.at}
        elif event.kind == "progress":
            run["phases"][body["phase"]] = {"done": body["done"], "total": body["total"]}
        elif event.kind == "loss":
            run["losses"].append((body["n"], body["value"]))
        elif event.kind == "memory":
            run["memory"] = body["bytes"]
        elif event.kind == "finished":
            about = {k: v for k, v in body.items() if k not in ("error", "seconds", "values")}
            run |= {"state": "failed" if body["error"] else "done", "about": {**run["about"], **about}}
            run |= {"seconds": body["seconds"], "error": body["error"], "values": body["values"]}
    return [r for r in found.values() if r["state"] != "running" or not job.is_over]
