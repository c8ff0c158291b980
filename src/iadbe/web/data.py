"""Routes for datasets: data that new runs can use, known datasets, data checks and uploads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, UploadFile
from pydantic import BaseModel, Field
from starlette.responses import Response

from iadbe import registry, system
from iadbe.data import check
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files.byte_sizes import format_bytes
from iadbe.web.cancellation import Cancelled, stop_if
from iadbe.web.catalogue import class_attributes, form, registered_card
from iadbe.web.data_roots import WITHOUT_FOLDER, DataRoot, count_images
from iadbe.web.problems import RequestRefused
from iadbe.web.state import WRITES, Server, ServerState

router = APIRouter(tags=["datasets"])
DatasetName = Annotated[str, Path(max_length=80)]
CHUNK_BYTES = 2**20


class DatasetEntry(BaseModel):
    """A data root or a known dataset."""

    name: str
    dataset: str = Field(description="registered name of its reader")
    summary: str
    about: dict[str, Any] = Field(description="class attributes of the reader: title, licence, published counts …")
    usable: bool = Field(description="new runs can use it")
    uploaded: float | None = Field(None, description="time of the upload, seconds since 1970; null: not uploaded")
    categories: list[str] = []
    counts: dict[str, dict[str, int]] = Field(
        {}, description="images by category: train, val, test_good, test_defective, test_unlabelled"
    )
    notes: list[str] = []
    regions: dict[str, float] = Field({}, description="categories with drawn regions: share of pixels that count")
    runs: int = Field(description="in the store, with this reader")


class DatasetDetail(DatasetEntry):
    """A data root or a known dataset, with documentation and parameters."""

    doc: str
    form: dict[str, Any]


class DataCheckReport(BaseModel):
    """Result of a data check."""

    title: str
    ok: bool
    counts: dict[str, dict[str, dict[str, int]]]
    sizes: dict[str, int]
    converted: dict[str, int]
    masks: dict[str, int]
    defect_share: dict[str, float]
    mask_reading: dict[str, int] = Field(description="how masks of defects were read, such as `labels 100, 255`")
    counted: dict[str, float] = Field(description="share of an image's pixels that count, where there is a region")
    intensity: str = Field(description="range of images of more than 8 bits; empty: there are none")
    duplicates: list[list[str]]
    near_copies: list[list[str]] = Field(description="pairs of images that are nearly the same")
    unused: dict[str, int]
    problems: list[dict[str, str]]


@router.get("/datasets", response_model=list[DatasetEntry])
def datasets(server: Server) -> Any:
    """List data that new runs can use, then known datasets that are not available here."""
    usable = [_root_entry(server, root) for root in server.data_roots.all()]
    without_folder = [_catalogue_entry(server, name) for name in registry.names("datasets") if name in WITHOUT_FOLDER]
    taken = {entry["name"] for entry in usable}
    rest = [
        _catalogue_entry(server, n) for n in registry.names("datasets") if n not in WITHOUT_FOLDER and n not in taken
    ]
    return [*usable, *without_folder, *rest]


@router.get("/datasets/{name}", response_model=DatasetDetail)
def dataset(server: Server, name: DatasetName) -> Any:
    """Return one dataset."""
    root = next((p for p in server.data_roots.all() if p.name == name), None)
    card = registered_card("datasets", name if root is None else root.dataset)
    entry = _catalogue_entry(server, name) if root is None else _root_entry(server, root)
    return {**entry, "doc": card.doc, "form": form(card)}


@router.get("/datasets/{name}/check", response_model=DataCheckReport)
def check_dataset(server: Server, name: DatasetName, cancelled: Cancelled) -> Any:
    """Read every image and mask, which takes a while, and report sizes, masks, duplicates and problems.

    The report is cached until the data changes.
    """
    root = "" if name in WITHOUT_FOLDER else str(server.data_roots.get(name).folder)
    made = server.data_roots.dataset(name)
    key = (name, made.digest())
    if key in server.check_reports:
        return server.check_reports[key]
    if not server.check_lock.acquire(blocking=False):
        raise RequestRefused(503, "the server is checking other data.", **{"Retry-After": "30"})
    try:
        found = check.check(made, lambda *_: stop_if(cancelled)).as_dict()
    finally:
        server.check_lock.release()
    regions = str(server.data_roots.regions.root)  # a path of the server is nobody's business
    for problem in found["problems"]:
        sentence = problem["sentence"].replace(f"{root}{os.sep}", "") if root else problem["sentence"]
        problem["sentence"] = sentence.replace(regions, "the drawn regions")
    server.check_reports[key] = found
    return found


@router.post("/datasets", response_model=DatasetDetail, status_code=201, dependencies=WRITES)
def upload(server: Server, name: Annotated[str, Form(max_length=80)], file: UploadFile, response: Response) -> Any:
    """Upload a zip of images: folders of good and defective ones, or any layout that a reader knows."""
    handle, path = tempfile.mkstemp(suffix=".zip", prefix="iadbe-")
    try:
        with os.fdopen(handle, "wb") as copy:
            size = 0
            while chunk := file.file.read(CHUNK_BYTES):
                size += len(chunk)
                if size > server.policy.upload:
                    raise BadData(f"the archive is longer than {format_bytes(server.policy.upload)}.")
                copy.write(chunk)
        server.data_roots.upload(name, File(path), server.policy)
    finally:
        system.remove(path)
    response.headers["Location"] = f"/api/v1/datasets/{name}"
    return dataset(server, name)


@router.delete("/datasets/{name}", status_code=204, dependencies=WRITES)
def remove(server: Server, name: DatasetName) -> None:
    """Remove uploaded data. Runs on it stay in the store."""
    folder = str(server.data_roots.get(name).folder)
    waiting, _ = server.queue.list_jobs(("queued", "running"), limit=1000)
    if any(folder in str(job.grid) for job in waiting):
        raise BadConfig(f"an unfinished job uses {name}. Stop it first.")
    server.data_roots.remove(name)


def _root_entry(server: ServerState, root: DataRoot) -> dict[str, Any]:
    entry = _catalogue_entry(server, root.dataset)
    notes = [note.replace(str(root.folder), root.name) for note in root.notes]
    more = {"categories": list(root.categories), "counts": root.counts, "notes": notes, "uploaded": root.uploaded}
    return {**entry, "name": root.name, "usable": True, **more, "regions": _counted(server, root.name)}


def _counted(server: ServerState, name: str) -> dict[str, float]:
    """Return the share of pixels that count by category, where regions are drawn."""
    return {category: region.counted for category, region in server.data_roots.regions.of(name).items()}


def _catalogue_entry(server: ServerState, name: str) -> dict[str, Any]:
    card = registered_card("datasets", name)
    runs = server.run_cache.now().counts("dataset")[name]
    own: dict[str, Any] = {"name": name, "dataset": name, "summary": card.summary, "about": class_attributes(card)}
    own |= {"uploaded": None, "categories": [], "counts": {}, "notes": [], "regions": {}}
    if name in WITHOUT_FOLDER:
        try:
            dataset, samples = server.data_roots.dataset_and_samples(name)
            own |= {"categories": list(dataset.categories), "counts": count_images(dataset.categories, samples)}
            own["regions"] = _counted(server, name)
        except Missing as error:  # the package that provides its images
            own["notes"] = [str(error)]
    return {**own, "usable": name in WITHOUT_FOLDER, "runs": runs}
