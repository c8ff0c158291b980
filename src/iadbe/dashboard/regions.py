"""The page to draw regions on: which pixels of a category's images count."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.dataset import evenly_spaced
from iadbe.web import regions as regions_api
from iadbe.web.drawn_regions import MAX_CORNERS, MAX_SHAPES
from iadbe.web.state import Server

router = APIRouter()
MAX_IMAGES = 100  # to look at below the drawing
LONGER_SIDE = 2048  # pixels of the image that is shown


@router.get("/data/{name}/regions")
def regions(
    server: Server,
    name: Annotated[str, Path(max_length=80)],
    category: Annotated[str, Query(max_length=200)] = "",
    image: Annotated[int, Query(ge=0, le=10**9, description="number of the image to begin with")] = 0,
) -> HTMLResponse:
    """Render the page, with one of the category's images."""
    dataset, samples = server.data_roots.dataset_and_samples(name)
    category = category or (dataset.categories[0] if dataset.categories else "")
    mine = regions_api.category_samples(server, name, category)
    height, width = regions_api.common_size(server, name, [sample for _, sample in mine])
    numbers = {sample.id: n for n, sample in mine}
    shown = evenly_spaced([sample for _, sample in mine], MAX_IMAGES)
    if 0 <= image < len(samples) and samples[image].category == category and samples[image] not in shown:
        shown = [samples[image], *shown]
    drawn = server.data_roots.regions
    region = drawn.of(name).get(category)
    scale = 1.0 if region is None else width / region.size[0]
    shapes = [] if region is None else [shape.model_dump(mode="json") for shape in region.shapes]
    for shape in shapes:  # the data may have come back at another resolution
        shape["points"] = [[min(x * scale, width), min(y * scale, height)] for x, y in shape["points"]]
    address = f"/api/v1/datasets/{name}/samples/{{}}/image?size={LONGER_SIDE}"
    view = {
        "name": name, "category": category, "size": [width, height], "revision": drawn.revision(name), "shapes": shapes,
        "first": next((n for n, sample in enumerate(shown) if numbers[sample.id] == image), 0),
        "images": [{"address": address.format(numbers[s.id]), "split": s.split, "defect": s.defect} for s in shown],
        "read_only": server.read_only, "max_shapes": MAX_SHAPES, "max_corners": MAX_CORNERS,
    }  # fmt: skip
    return page(
        "regions", server, title=f"Region of {category}", at="/data", data=name, category=category,
        categories=dataset.categories, view=view, counted=None if region is None else region.counted,
    )  # fmt: skip
