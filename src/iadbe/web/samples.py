"""The images of data that the server may use: which there are, and each as it is or with its defect outlined."""

from __future__ import annotations

import io
from collections import Counter
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import Response

from iadbe.errors import UnknownName
from iadbe.report import colormap
from iadbe.web.data import PlaceName
from iadbe.web.house import Here

router = APIRouter(tags=["datasets"])
Text = Annotated[str, Query(max_length=200)]
QUALITY = 85  # of a JPEG
LINE = 130  # of an image's length, an outline is one part thick


class Listed(BaseModel):
    """One image of some data."""

    n: int = Field(description="its number in the data")
    id: str
    category: str
    split: str
    defect: str = Field(description="`good`, or the kind")
    has_mask: bool
    links: dict[str, str]


class Kind(BaseModel):
    """How many images there are of a kind."""

    category: str
    split: str
    defect: str
    count: int


class Samples(BaseModel):
    """A part of the list, and what the whole of it holds."""

    total: int = Field(description="that are meant")
    samples: list[Listed]
    kinds: list[Kind] = Field(description="of all of the data")


@router.get("/datasets/{name}/samples", response_model=Samples)
def samples(
    house: Here,
    name: PlaceName,
    category: Text = "",
    split: Text = "",
    defect: Annotated[str, Query(max_length=200, description="`good`, a kind, or `any` defect")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 60,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Any:
    """List images of data that may be used."""
    _, every = house.places.opened(name)
    kinds = Counter((s.category, s.split, s.defect) for s in every)
    meant = [
        (n, s)
        for n, s in enumerate(every)
        if category in ("", s.category) and split in ("", s.split) and _is(s.defect, defect)
    ]
    found = [
        {
            "n": n, "id": s.id, "category": s.category, "split": s.split, "defect": s.defect,
            "has_mask": s.mask is not None,
            "links": {kind: f"/api/v1/datasets/{name}/samples/{n}/{kind}" for kind in _kinds(s.mask is not None)},
        }
        for n, s in meant[offset : offset + limit]
    ]  # fmt: skip
    listed = [{"category": c, "split": s, "defect": d, "count": k} for (c, s, d), k in kinds.items()]
    return {"total": len(meant), "samples": found, "kinds": listed}


@router.get(
    "/datasets/{name}/samples/{n}/{kind}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def sample(
    house: Here,
    name: PlaceName,
    n: Annotated[int, Path(ge=0, le=10**9)],
    kind: Literal["image", "mask", "truth"],
    size: Annotated[int, Query(ge=32, le=2048, description="pixels of the longer side, at most")] = 256,
) -> Response:
    """Return an image: `image`, `mask`, or `truth`, the image with its defect outlined."""
    dataset, every = house.places.opened(name)
    if n >= len(every) or (kind != "image" and every[n].mask is None):
        raise UnknownName(f"{name} has no image {n} of the kind {kind}.")
    one, mask = every[n], None if kind == "image" else dataset.mask(every[n])
    if kind == "mask" and mask is not None:
        small = _small(mask.astype(np.uint8) * 255, size)
    else:
        small = _small(dataset.image(one), size)
    if kind == "truth" and mask is not None:
        small = colormap.outline(small, mask, width=max(1, max(small.shape) // LINE))
    data = io.BytesIO()
    Image.fromarray(small).save(data, "JPEG", quality=QUALITY)
    headers = {"Cache-Control": "private, max-age=600"}
    return Response(data.getvalue(), headers=headers, media_type="image/jpeg")


def _is(defect: str, wanted: str) -> bool:
    return wanted in ("", defect) or (wanted == "any" and defect != "good")


def _kinds(marked: bool) -> tuple[str, ...]:
    return ("image", "mask", "truth") if marked else ("image",)


def _small(pixels: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)
