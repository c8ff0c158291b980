"""Datasets: what the runs in the store are about, what new runs may use, and archives that users bring."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Form, Path, UploadFile
from pydantic import BaseModel, Field
from starlette.responses import Response

from iadbe import registry
from iadbe.data import check
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.web.catalogue import about, form, known
from iadbe.web.house import Here, House
from iadbe.web.places import DRAWN, Place, counted
from iadbe.web.problems import Refused

router = APIRouter(tags=["datasets"])
PlaceName = Annotated[str, Path(max_length=80)]
CHUNK = 2**20


class Data(BaseModel):
    """Data under a name."""

    name: str
    dataset: str = Field(description="the reader: a name of the shelf of datasets")
    summary: str
    about: dict[str, Any] = Field(description="what the reader's class says: title, licence, published counts …")
    usable: bool = Field(description="new runs may name it")
    uploaded: float | None = Field(None, description="seconds since 1970; null: it was not uploaded")
    categories: list[str] = []
    counts: dict[str, dict[str, int]] = Field({}, description="images by category: train, test_good, test_defective")
    notes: list[str] = []
    runs: int = Field(description="in the store, of this reader")


class WholeData(Data):
    """The same with the form of its parameters."""

    doc: str
    form: dict[str, Any]


class Looked(BaseModel):
    """What a look at every image and mask has found."""

    title: str
    ok: bool
    counts: dict[str, dict[str, dict[str, int]]]
    sizes: dict[str, int]
    converted: dict[str, int]
    masks: dict[str, int]
    defect_share: dict[str, float]
    duplicates: list[list[str]]
    unused: dict[str, int]
    problems: list[dict[str, str]]


@router.get("/datasets", response_model=list[Data])
def datasets(house: Here) -> Any:
    """List the data that may be used, then the datasets that are only known."""
    own = [_place(house, place) for place in house.places.all()]
    drawn = [_shelf(house, name) for name in registry.names("datasets") if name in DRAWN]
    taken = {entry["name"] for entry in own}
    rest = [_shelf(house, n) for n in registry.names("datasets") if n not in DRAWN and n not in taken]
    return [*own, *drawn, *rest]


@router.get("/datasets/{name}", response_model=WholeData)
def dataset(house: Here, name: PlaceName) -> Any:
    """Return one of them."""
    place = next((p for p in house.places.all() if p.name == name), None)
    card = known("datasets", name if place is None else place.dataset)
    entry = _shelf(house, name) if place is None else _place(house, place)
    return {**entry, "doc": card.doc, "form": form(card)}


@router.get("/datasets/{name}/check", response_model=Looked)
def check_dataset(house: Here, name: PlaceName) -> Any:
    """Look at every image and mask, which takes a while, and say what is in it and what is wrong with it.

    What was found is remembered until the data changes.
    """
    root = "" if name in DRAWN else str(house.places.get(name).folder)
    made = house.places.made(name)
    key = (name, made.digest())
    if key in house.looked:
        return house.looked[key]
    if not house.looking.acquire(blocking=False):
        raise Refused(503, "the server is looking at other data.", **{"Retry-After": "30"})
    try:
        found = check.check(made).as_dict()
    finally:
        house.looking.release()
    if root:
        for problem in found["problems"]:
            problem["sentence"] = problem["sentence"].replace(f"{root}/", "")
    house.looked[key] = found
    return found


@router.post("/datasets", response_model=WholeData, status_code=201)
def upload(house: Here, name: Annotated[str, Form(max_length=80)], file: UploadFile, response: Response) -> Any:
    """Bring a zip of images: folders of good and defective ones, or any layout that a reader knows."""
    handle, path = tempfile.mkstemp(suffix=".zip", prefix="iadbe-")
    try:
        with os.fdopen(handle, "wb") as copy:
            size = 0
            while chunk := file.file.read(CHUNK):
                size += len(chunk)
                if size > house.rules.upload:
                    raise BadData(f"the archive is longer than {house.rules.upload / 1e6:.0f} MB.")
                copy.write(chunk)
        house.places.upload(name, File(path), house.rules)
    finally:
        os.unlink(path)
    response.headers["Location"] = f"/api/v1/datasets/{name}"
    return dataset(house, name)


@router.delete("/datasets/{name}", status_code=204)
def remove(house: Here, name: PlaceName) -> None:
    """Remove what was uploaded; runs on it stay in the store."""
    folder = str(house.places.get(name).folder)
    waiting, _ = house.queue.listed(("queued", "running"), limit=1000)
    if any(folder in str(job.grid) for job in waiting):
        raise BadConfig(f"a job that is not over uses {name}. Stop it first.")
    house.places.remove(name)


def _place(house: House, place: Place) -> dict[str, Any]:
    entry = _shelf(house, place.dataset)
    notes = [note.replace(str(place.folder), place.name) for note in place.notes]
    more = {"categories": list(place.categories), "counts": place.counts, "notes": notes, "uploaded": place.uploaded}
    return {**entry, "name": place.name, "usable": True, **more}


def _shelf(house: House, name: str) -> dict[str, Any]:
    card = known("datasets", name)
    runs = house.library.now().counts("dataset")[name]
    own: dict[str, Any] = {"name": name, "dataset": name, "summary": card.summary, "about": about(card)}
    own |= {"uploaded": None, "categories": [], "counts": {}, "notes": []}
    if name in DRAWN:
        try:
            dataset, samples = house.places.opened(name)
            own |= {"categories": list(dataset.categories), "counts": counted(dataset.categories, samples)}
        except Missing as error:  # the package that draws it
            own["notes"] = [str(error)]
    return {**own, "usable": name in DRAWN, "runs": runs}
