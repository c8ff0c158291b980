"""Routes for the test images stored with runs: input, anomaly map, heat map, overlay and outlined defect."""

from __future__ import annotations

import io
import json
from pathlib import Path as File
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, Response

from iadbe.errors import BadData, UnknownName
from iadbe.files.image_io import read_rgb
from iadbe.files.mask_io import read_mask
from iadbe.report import colormap
from iadbe.running.store import images_index
from iadbe.web.runs import Name, finite
from iadbe.web.state import Server

router = APIRouter(tags=["images"])
Kind = Literal["input", "map", "mask", "heat", "overlay", "truth"]
FILES = {"input": "input.jpg", "map": "map.png", "mask": "mask.png"}
MAX_RUNS = 12  # runs in one request


class RunImage(BaseModel):
    """A test image stored with a run."""

    run: str
    n: int
    sample: str
    category: str
    defect: str = Field(description="`good`, or the kind")
    score: float | None
    links: dict[str, str] = Field(description="addresses of the image by kind")


@router.get("/pictures", response_model=list[RunImage], include_in_schema=False)  # old path
@router.get("/images", response_model=list[RunImage])
def images(
    server: Server,
    run: Annotated[list[str], Query(description="runs' ids", min_length=1, max_length=MAX_RUNS)],
    sample: Annotated[str, Query(description="only this sample")] = "",
) -> Any:
    """List the images stored with runs, grouped by sample over several runs."""
    found = [entry for name in dict.fromkeys(run) for entry in _entries(server.run_cache.path(name))]
    found = [entry for entry in found if sample in ("", entry["sample"])]
    order = {s: i for i, s in enumerate(dict.fromkeys(e["sample"] for e in found))}
    return sorted(found, key=lambda e: order[e["sample"]])


@router.get(
    "/images/{run}/{n}/{kind}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}},
)
def image(
    server: Server,
    request: Request,
    run: Name,
    n: Annotated[int, Path(ge=0, le=10**6)],
    kind: Kind,
    strength: Annotated[float, Query(ge=0, le=1, description="opacity of the heat map in an overlay")] = 0.78,
) -> Response:
    """Return an image.

    The kinds are `input`, `map` (grey), `mask`, `heat` (coloured, transparent at low scores), `overlay`, and `truth`,
    the input with the defect outlined. `heat` and `overlay` are grey where pixels do not count.
    """
    folder = images_index(server.run_cache.path(run)).parent
    entry = next((e for e in _entries(folder.parent) if e["n"] == n), None)
    if entry is None or kind not in entry["links"]:
        raise UnknownName(f"the run {run} has no stored image {n} of the kind {kind}.")
    source = folder / f"{n:02d}_{FILES[kind] if kind in FILES else FILES['input']}"
    stamp = f'"{source.stat().st_mtime_ns:x}-{kind}-{strength:g}"'
    headers = {"Cache-Control": "private, max-age=3600", "ETag": stamp}
    if request.headers.get("if-none-match") == stamp:
        return Response(status_code=304, headers=headers)
    if kind in FILES:
        return FileResponse(source, headers=headers)
    return Response(_render(folder, n, kind, strength), headers=headers, media_type="image/png")


def _render(folder: File, n: int, kind: str, strength: float) -> bytes:
    base = f"{n:02d}_"
    if kind == "truth":
        shown = read_rgb(folder / f"{base}{FILES['input']}")
        mask = read_mask(folder / f"{base}{FILES['mask']}")
        return png(colormap.outline(shown, mask, width=max(1, shown.shape[1] // 100)))
    heat_values = read_rgb(folder / f"{base}{FILES['map']}")[:, :, 0]
    counts = folder / f"{base}region.png"  # where pixels do not count
    region = read_mask(counts) if counts.is_file() else np.ones(heat_values.shape, bool)
    if kind == "heat":
        return png(colormap.transparent(heat_values, region))
    drawn = colormap.overlay(read_rgb(folder / f"{base}{FILES['input']}"), heat_values, strength)
    return png(drawn if region.all() else colormap.greyed(drawn, region))


def png(pixels: np.ndarray) -> bytes:
    """Return (H, W, 3) or (H, W, 4) uint8 as a PNG file."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=3)
    return data.getvalue()


def _entries(folder: File) -> list[dict[str, Any]]:
    """Return the entries of a run's images, with links only to files that exist."""
    file, run = images_index(folder), folder.name.rpartition("-")[2]
    try:
        listed = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        return [_entry(file.parent, run, about) for about in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{file} is damaged ({error}).") from error


def _entry(folder: File, run: str, about: dict[str, Any]) -> dict[str, Any]:
    n = int(about["n"])
    have = {kind for kind, name in FILES.items() if (folder / f"{n:02d}_{name}").is_file()}
    have |= {"heat", "overlay"} if {"map", "input"} <= have else set()
    have |= {"truth"} if {"mask", "input"} <= have else set()
    links = {kind: f"/api/v1/images/{run}/{n}/{kind}" for kind in sorted(have)}
    words = {name: str(about[name]) for name in ("sample", "category", "defect")}
    return {"run": run, "n": n, **words, "score": finite(float(about["score"])), "links": links}
