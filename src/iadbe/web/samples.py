"""Routes for the images of a data root: the list, and each image with its mask or outlined defect."""

from __future__ import annotations

import io
from collections import Counter
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import Response

from iadbe.dataset import Dataset
from iadbe.errors import UnknownName
from iadbe.files.image_io import resized
from iadbe.report import colormap
from iadbe.types import UNLABELLED, Sample
from iadbe.web.data import DatasetName
from iadbe.web.state import Server

router = APIRouter(tags=["datasets"])
NameFilter = Annotated[str, Query(max_length=200)]
JPEG_QUALITY = 85  # of a JPEG
OUTLINES = 130  # an outline is 1/130 of the image's longer side thick


class SampleEntry(BaseModel):
    """One image of a dataset."""

    n: int = Field(description="its position in the dataset")
    id: str
    category: str
    split: str
    defect: str = Field(description="`good`, `unlabelled`, or the kind")
    has_mask: bool
    links: dict[str, str]


class SampleGroup(BaseModel):
    """Number of images with the same category, split and defect."""

    category: str
    split: str
    defect: str
    count: int


class SampleList(BaseModel):
    """One page of images, and the counts of the whole dataset."""

    total: int = Field(description="images that match")
    samples: list[SampleEntry]
    kinds: list[SampleGroup] = Field(description="counts over the whole dataset")


@router.get("/datasets/{name}/samples", response_model=SampleList)
def samples(
    server: Server,
    name: DatasetName,
    category: NameFilter = "",
    split: NameFilter = "",
    defect: Annotated[str, Query(max_length=200, description="`good`, a kind, or `any` defect")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 60,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Any:
    """List the images of a dataset."""
    dataset, samples_ = server.data_roots.dataset_and_samples(name)
    kinds = Counter((s.category, s.split, s.defect) for s in samples_)
    matching = [
        (n, s)
        for n, s in enumerate(samples_)
        if category in ("", s.category) and split in ("", s.split) and _matches(s.defect, defect)
    ]
    found = [
        {
            "n": n, "id": s.id, "category": s.category, "split": s.split, "defect": s.defect,
            "has_mask": s.mask is not None,
            "links": {kind: f"/api/v1/datasets/{name}/samples/{n}/{kind}" for kind in _kinds(dataset, s)},
        }
        for n, s in matching[offset : offset + limit]
    ]  # fmt: skip
    listed = [{"category": c, "split": s, "defect": d, "count": k} for (c, s, d), k in kinds.items()]
    return {"total": len(matching), "samples": found, "kinds": listed}


@router.get(
    "/datasets/{name}/samples/{n}/{kind}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def sample(
    server: Server,
    name: DatasetName,
    n: Annotated[int, Path(ge=0, le=10**9)],
    kind: Literal["image", "mask", "truth"],
    request: Request,
    size: Annotated[int, Query(ge=32, le=2048, description="maximum of the longer side in pixels")] = 256,
) -> Response:
    """Return an image as JPEG: `image`, `mask`, or `truth`, its defect outlined and grey where pixels do not count."""
    dataset, samples_ = server.data_roots.dataset_and_samples(name)
    if n >= len(samples_) or kind not in _kinds(dataset, samples_[n]):
        raise UnknownName(f"{name} has no image {n} of the kind {kind}.")
    stamp = f'"{n}-{kind}-{size}-{dataset.region_digest([samples_[n]])}"'
    headers = {"Cache-Control": "private, max-age=600" if kind == "image" else "private, no-cache", "ETag": stamp}
    if request.headers.get("if-none-match") == stamp:
        return Response(status_code=304, headers=headers)
    one, mask = samples_[n], None if kind == "image" else dataset.mask(samples_[n])
    if kind == "mask" and mask is not None:
        small = _thumbnail(mask.astype(np.uint8) * 255, size)
    else:
        small = _thumbnail(dataset.image(one), size)
    if kind == "truth" and mask is not None:
        small = colormap.outline(small, mask, width=max(1, max(small.shape) // OUTLINES))
    if kind == "truth" and (counts := dataset.region(one)) is not None:
        small = colormap.greyed(small, resized(counts, *small.shape[:2]))
    data = io.BytesIO()
    Image.fromarray(small).save(data, "JPEG", quality=JPEG_QUALITY)
    return Response(data.getvalue(), headers=headers, media_type="image/jpeg")


def _matches(defect: str, wanted: str) -> bool:
    return wanted in ("", defect) or (wanted == "any" and defect not in ("good", UNLABELLED))


def _kinds(dataset: Dataset, sample: Sample) -> tuple[str, ...]:
    if sample.mask is not None:
        return ("image", "mask", "truth")
    return ("image", "truth") if dataset.region_digest([sample]) else ("image",)


def _thumbnail(pixels: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)
