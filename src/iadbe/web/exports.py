"""Routes for exported files of stored models: a job makes them, and they lie in the run's folder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from iadbe import registry, system
from iadbe.errors import BadConfig, IadbeError
from iadbe.exporting import PRECISIONS
from iadbe.jobs import exports
from iadbe.jobs.exports import ExportRequest
from iadbe.jobs.queue import Job
from iadbe.parameters import complete, why_not_exportable
from iadbe.running.store import folder_name
from iadbe.types import RunSpec
from iadbe.web import grid_request
from iadbe.web.jobs import JobSummary, summary
from iadbe.web.model_download import zipped
from iadbe.web.models import folder_of
from iadbe.web.runs import Name
from iadbe.web.state import WRITES, Server, ServerState

router = APIRouter(tags=["models"])
OPTIONS = ("threads", "time_limit", "memory_limit")  # of jobs that export
OPEN = ("queued", "running")
ZIP: dict[str, Any] = {"content": {"application/zip": {}}}
ExportName = Annotated[str, Path(pattern=f"^{exports.NAME.pattern}$", description="`<format>-<precision>`")]


class ExportedFiles(BaseModel):
    """A model as files that run without torch."""

    name: str
    to: Literal["onnx", "openvino", "torch", "web"]
    precision: str
    file: str = Field(description="name of the main file")
    bytes: int = Field(description="of all files")
    date: str
    deviation: str = Field(description="how far scores and maps are from torch; empty where nothing could compare them")
    holds: bool | None = Field(description="whether that is within the tolerance; null where it is not known")
    allowed: list[str] = Field(description="what was said of licences")
    is_outdated: bool = Field(description="the model has been calibrated since")


class ModelExports(BaseModel):
    """The exported files of a model."""

    not_exportable: str = Field(description="why there cannot be any; empty where there can")
    formats: list[str]
    precisions: list[str]
    exports: list[ExportedFiles]
    jobs: list[JobSummary] = Field(description="exports of this model that wait or are under way")


class ExportOrder(BaseModel):
    """What to export."""

    model_config = ConfigDict(extra="forbid")

    to: Literal["onnx", "openvino", "torch", "web"] = "onnx"
    precision: str = Field("fp32", pattern="^[a-z0-9]{1,16}$", description=f"of the weights: {', '.join(PRECISIONS)}")
    allow: list[Literal["noncommercial", "own"]] = Field(
        [], max_length=2,
        description="what licences need you to say: the files are for research alone (noncommercial); the images are "
        "your own and only lie in the layout of a published data set (own)",
    )  # fmt: skip
    options: dict[str, Any] = Field({}, description=f"limits of the job: {', '.join(OPTIONS)}")


@router.get("/models/{run}/exports", response_model=ModelExports)
def exported(server: Server, run: Name) -> Any:
    """List the exported files of a model, and the jobs that make some."""
    folder_of(server, run)
    cached = server.run_cache.run(run)
    return {
        "not_exportable": why_not(cached.result.spec),
        "formats": list(exports.FORMATS),
        "precisions": list(PRECISIONS),
        "exports": [_fields(stored) for stored in exports.exports_of(server.run_cache.path(run))],
        "jobs": [summary(job) for job in _open_jobs(server, cached.id)],
    }


@router.post("/models/{run}/exports", response_model=JobSummary, status_code=201, dependencies=WRITES)
def export(server: Server, run: Name, order: ExportOrder, response: Response) -> Any:
    """Queue a job that exports a model; one that waits or runs for the same files is returned instead."""
    folder_of(server, run)
    cached = server.run_cache.run(run)
    spec = cached.result.spec
    request = ExportRequest(cached.id, order.to, order.precision, tuple(sorted(set(order.allow))))
    exports.check(request)
    if reason := why_not(spec):
        raise BadConfig(f"{spec.detector} cannot be exported: {reason}.")
    if unknown := set(order.options) - set(OPTIONS):
        raise BadConfig(f"an export has no option {min(unknown)!r}. It has: {', '.join(OPTIONS)}.")
    how = grid_request.options(order.options)
    same = (job for job in _open_jobs(server, cached.id) if exports.request_of(job.grid).name == request.name)
    title = f"{spec.detector} on {spec.task} as {order.to}, {order.precision}"
    job = next(same, None) or server.queue.add(request.as_grid(), how, title=title)
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return summary(job)


@router.get("/models/{run}/exports/{name}/download", response_class=Response, responses={200: ZIP})
def download_export(server: Server, run: Name, name: ExportName) -> StreamingResponse:
    """Return exported files as a ZIP file: the model, what it is compared with, and of a page all that it needs."""
    folder = exports.folder_of(server.run_cache.path(run), name)
    called = f"{folder_name(server.run_cache.run(run).result.spec)}-{name}"
    headers = {"Content-Disposition": f'attachment; filename="{called}.zip"'}
    return StreamingResponse(zipped(folder, called), media_type="application/zip", headers=headers)


@router.delete("/models/{run}/exports/{name}", status_code=204, dependencies=WRITES)
def remove_export(server: Server, run: Name, name: ExportName) -> None:
    """Remove exported files; the model stays."""
    system.remove_tree(exports.folder_of(server.run_cache.path(run), name))


def why_not(spec: RunSpec) -> str:
    """Return why no exported file can hold the detector of a run, as far as its card says; empty where one can."""
    try:
        card = registry.card("detectors", spec.detector)
        return why_not_exportable(card, complete(card, spec.detector_params))
    except IadbeError:  # of a plug-in or of another version: the job says it
        return ""


def _fields(stored: exports.StoredExport) -> dict[str, Any]:
    return {name: getattr(stored, name) for name in ExportedFiles.model_fields}


def _open_jobs(server: ServerState, run: str) -> list[Job]:
    """Return the jobs that will export a run's model."""
    waiting, _ = server.queue.list_jobs(OPEN, 10_000)
    return [job for job in waiting if exports.is_export(job.grid) and exports.request_of(job.grid).run == run]
