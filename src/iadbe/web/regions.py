"""Routes for the regions that are drawn over the images of a data root."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from iadbe.dataset import evenly_spaced
from iadbe.errors import BadConfig, UnknownName
from iadbe.files.region_files import have_same_proportions
from iadbe.types import Sample
from iadbe.web.data import DatasetName
from iadbe.web.drawn_regions import Drawing, DrawnRegion, Outdated
from iadbe.web.problems import RequestRefused
from iadbe.web.state import WRITES, Server, ServerState

router = APIRouter(tags=["datasets"])
Category = Annotated[str, Query(max_length=200)]
COMPARED = 20  # images of a category whose sizes are compared


class RegionList(BaseModel):
    """The regions drawn on a data root."""

    revision: str = Field(description="changes with every drawing; a change names the one that it is based on")
    regions: dict[str, DrawnRegion] = Field(description="by category")


class RegionChange(Drawing):
    """What shall be drawn over the images of a category; no shapes remove it."""

    revision: str = Field(max_length=16, description="the revision that this is based on; empty: nothing is drawn yet")


@router.get("/datasets/{name}/regions", response_model=RegionList)
def regions(server: Server, name: DatasetName) -> Any:
    """Return what is drawn over the images of a dataset."""
    server.data_roots.dataset_and_samples(name)
    drawn = server.data_roots.regions
    return {"revision": drawn.revision(name), "regions": drawn.of(name)}


@router.put("/datasets/{name}/regions", response_model=RegionList, dependencies=WRITES)
def draw(server: Server, name: DatasetName, category: Category, change: RegionChange) -> Any:
    """Store what is drawn over the images of a category. New runs on it use it, unless they say `region: none`."""
    samples = category_samples(server, name, category)
    expected = common_size(server, name, [sample for _, sample in samples])
    if change.size != (width_and_height := expected[::-1]):
        sizes = "{}x{} pixels large, but an image of {} is {}x{}".format(*change.size, category, *width_and_height)
        raise BadConfig(f"the drawing is {sizes}. Load the page again.")
    try:
        server.data_roots.regions.save(name, category, change, change.revision)
    except Outdated as error:
        raise RequestRefused(409, str(error)) from error
    return regions(server, name)


def category_samples(server: ServerState, name: str, category: str) -> list[tuple[int, Sample]]:
    """Return the images of a category with their numbers. Raises :class:`UnknownName` where there are none."""
    _, samples = server.data_roots.dataset_and_samples(name)
    found = [(n, sample) for n, sample in enumerate(samples) if sample.category == category]
    if not found:
        raise UnknownName(f"{name} has no images of a category {category!r}.")
    return found


def common_size(server: ServerState, name: str, samples: list[Sample]) -> tuple[int, int]:
    """Return (height, width) of the first image. Raises :class:`BadConfig` where others have other proportions."""
    dataset, _ = server.data_roots.dataset_and_samples(name)
    first, *rest = [dataset.image_size(sample) for sample in evenly_spaced(samples, COMPARED)]
    if other := next((size for size in rest if not have_same_proportions(first, size)), None):
        raise BadConfig(
            f"the images have different proportions ({first[1]}x{first[0]} and {other[1]}x{other[0]} pixels), so no "
            "region can hold for all of them. Give a mask for each image with --data.roi or --data.ignore."
        )
    return first
