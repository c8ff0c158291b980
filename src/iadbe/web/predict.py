"""Scores images that somebody brings, with a model of the store."""

from __future__ import annotations

import base64
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Form, UploadFile
from PIL import Image
from pydantic import BaseModel, Field

from iadbe.errors import BadData
from iadbe.files.image_io import read_rgb
from iadbe.report import colormap
from iadbe.web import content
from iadbe.web.house import Client, Here, House
from iadbe.web.images import png
from iadbe.web.models import Fitted, folder_of
from iadbe.web.problems import Refused

if TYPE_CHECKING:
    from iadbe.api import ImageResult

router = APIRouter(tags=["predict"])
SHOWN = 1024  # pixels of the longer side of a returned image
PATIENCE = 60.0  # seconds that a request waits for its turn


class Said(BaseModel):
    """What the model says of one image."""

    name: str
    score: float | None = Field(description="raw; null: it could not be scored")
    scaled: float | None = Field(description="on the scale for people, 0.5 at the model's own threshold")
    defective: bool | None = Field(description="the verdict; null: there is no threshold")
    error: str = Field("", description="why it could not be scored")
    heat: str | None = Field(None, description="data URI of the heat over the image, if asked for and known")
    map: str | None = Field(None, description="data URI of the coloured heat alone, clear where it is cold")
    mask: str | None = Field(None, description="data URI of where the map passes the threshold for pixels")


class Predicted(BaseModel):
    """What the model says of all of them."""

    model: str
    detector: str
    threshold: float | None
    milliseconds: float = Field(description="of one image, decoding and drawing included, mean")
    findings: list[Said] = Field(description="in the order of the files")


@router.post("/predict", response_model=Predicted)
def predict(
    house: Here,
    client: Client,
    model: Annotated[str, Form(max_length=200, description="the id of the run that has made it")],
    files: list[UploadFile],
    threshold: Annotated[float | None, Form(description="instead of the model's own", allow_inf_nan=False)] = None,
    images: Annotated[bool, Form(description="return heat maps too")] = True,
    pictures: Annotated[bool | None, Form(description="the name of images in version 0.1", deprecated=True)] = None,
) -> Any:
    """Score images (PNG, JPEG, BMP, TIFF, WebP). One that cannot be read is a finding with an error."""
    folder, rules, draw = folder_of(house, model), house.rules, images if pictures is None else pictures
    if len(files) > rules.images:
        raise Refused(413, f"{len(files)} images are too many at once; {rules.images} are allowed.")
    if seconds := house.predictions.wait(client, len(files)):
        told = f"{rules.predict_rate} images a minute are allowed. Come back in {seconds} s."
        raise Refused(429, told, **{"Retry-After": str(seconds)})
    if not house.turns.acquire(blocking=False):
        raise Refused(503, "too many wait for their turn.", **{"Retry-After": "10"})
    with _released(house.turns), tempfile.TemporaryDirectory(prefix="iadbe-") as place:
        paths, errors = _received(house, files, Path(place))
        found, detector, limit, taken = _scored(house, folder, [p for p in paths if p], threshold, place)
        scored = iter(found)
        findings = []
        for file, path, error in zip(files, paths, errors, strict=True):
            name = (file.filename or "image")[:200]
            if path is None:
                findings.append({"name": name, "score": None, "scaled": None, "defective": None, "error": error})
            else:
                findings.append(
                    {
                        "name": name,
                        **_told(next(scored), path, limit, place, draw=draw),
                    }
                )
    each = round(1000 * taken / max(1, len(found)), 2)
    own = next((f.threshold for f in found), threshold)
    return {"model": model, "detector": detector, "threshold": own, "milliseconds": each, "findings": findings}


@contextmanager
def _released(turns: threading.Semaphore) -> Iterator[None]:
    try:
        yield
    finally:
        turns.release()


def _received(house: House, files: list[UploadFile], place: Path) -> tuple[list[Path | None], list[str]]:
    """Keep what is an image, under names of our own."""
    paths: list[Path | None] = []
    errors = []
    for number, file in enumerate(files):
        data = file.file.read(house.rules.image + 1)
        try:
            path = place / f"{number:04d}{content.check(data, house.rules, (file.filename or 'the image')[:200])}"
            path.write_bytes(data)
            paths.append(path)
            errors.append("")
        except BadData as error:
            paths.append(None)
            errors.append(str(error))
    return paths, errors


def _scored(
    house: House, folder: Path, paths: list[Path], threshold: float | None, place: str
) -> tuple[list[ImageResult], str, float | None, float]:
    """Return the findings, the detector, the threshold for pixels and the seconds that it took."""
    from iadbe import api

    if house.fitted is None:
        house.fitted = Fitted()
    if not house.fitted.lock.acquire(timeout=PATIENCE):
        raise Refused(503, "the server is busy with other images.", **{"Retry-After": "30"})
    try:
        model = house.fitted.get(folder, house.device)
        began = time.perf_counter()
        found = list(api.predict(model, paths, threshold=threshold, device=house.device)) if paths else []
        return found, model.name, model.calibration.pixel_threshold, time.perf_counter() - began
    except BadData as error:
        raise BadData(str(error).replace(f"{place}/", "")) from error
    finally:
        house.fitted.lock.release()


def _told(finding: ImageResult, path: Path, limit: float | None, place: str, *, draw: bool) -> dict[str, Any]:
    score = finding.score if math.isfinite(finding.score) else None
    told: dict[str, Any] = {"score": score, "scaled": finding.scaled, "defective": finding.defective}
    told["error"] = finding.error.replace(f"{place}/", "")
    if draw and finding.heat is not None and finding.map is not None:
        shown = _shown(read_rgb(path))
        warm = _shown(finding.heat)
        told |= {"heat": _uri(colormap.overlay(shown, warm)), "map": _uri(colormap.transparent(warm))}
        if limit is not None:
            told["mask"] = _uri(_shown((finding.map >= limit).astype(np.uint8) * 255))
    return told


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Make an image or a map no larger than a screen."""
    share = SHOWN / max(pixels.shape[:2])
    if share >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _uri(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"
