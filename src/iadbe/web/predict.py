"""Route that scores uploaded images with a model of the store."""

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
from iadbe.web import sniff
from iadbe.web.images import png
from iadbe.web.models import ModelCache, folder_of
from iadbe.web.problems import RequestRefused
from iadbe.web.state import ClientAddress, Server, ServerState

if TYPE_CHECKING:
    from iadbe.api import ImageResult

router = APIRouter(tags=["predict"])
MAX_SIDE = 1024  # pixels of the longer side of a returned image
MAX_WAIT = 60.0  # seconds that a request waits for the model


class ImagePrediction(BaseModel):
    """Prediction for one image."""

    name: str
    score: float | None = Field(description="anomaly score; null: the image could not be scored")
    scaled: float | None = Field(description="score scaled to 0–1, with 0.5 at the model's threshold")
    defective: bool | None = Field(description="verdict; null: the model has no threshold")
    note: str = Field("", description="where a deep image does not fit the range that it was scaled by")
    error: str = Field("", description="why the image could not be scored")
    heat: str | None = Field(None, description="data URI of the heat map over the image")
    map: str | None = Field(None, description="data URI of the heat map, transparent at low scores")
    mask: str | None = Field(None, description="data URI of the pixels above the pixel threshold")


class PredictResponse(BaseModel):
    """Predictions for all images of a request."""

    model: str
    detector: str
    threshold: float | None
    milliseconds: float = Field(description="mean time of one image, with decoding and drawing")
    findings: list[ImagePrediction] = Field(description="in the order of the files")


@router.post("/predict", response_model=PredictResponse)
def predict(
    server: Server,
    client: ClientAddress,
    model: Annotated[str, Form(max_length=200, description="id of the run that fitted it")],
    files: list[UploadFile],
    threshold: Annotated[
        float | None, Form(description="image threshold; the model's own by default", allow_inf_nan=False)
    ] = None,
    images: Annotated[bool, Form(description="return heat maps")] = True,
    pictures: Annotated[bool | None, Form(description="old name of images", deprecated=True)] = None,
) -> Any:
    """Score images of any known format. One that cannot be read gets an error instead of a score."""
    folder, rules, draw = folder_of(server, model), server.policy, images if pictures is None else pictures
    if len(files) > rules.images:
        raise RequestRefused(413, f"{len(files)} images are too many at once; {rules.images} are allowed.")
    if seconds := server.predict_limiter.take(client, len(files)):
        detail = f"{rules.predict_rate} images a minute are allowed. Come back in {seconds} s."
        raise RequestRefused(429, detail, **{"Retry-After": str(seconds)})
    if not server.predict_slots.acquire(blocking=False):
        raise RequestRefused(503, "too many prediction requests are waiting.", **{"Retry-After": "10"})
    with _slot(server.predict_slots), tempfile.TemporaryDirectory(prefix="iadbe-") as place:
        paths, errors = _save_images(server, files, Path(place))
        found, detector, limit, taken = _predict(server, folder, [p for p in paths if p], threshold, place)
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
                        **_finding(next(scored), path, limit, place, draw=draw),
                    }
                )
    each = round(1000 * taken / max(1, len(found)), 2)
    own = next((f.threshold for f in found), threshold)
    return {"model": model, "detector": detector, "threshold": own, "milliseconds": each, "findings": findings}


@contextmanager
def _slot(turns: threading.Semaphore) -> Iterator[None]:
    try:
        yield
    finally:
        turns.release()


def _save_images(server: ServerState, files: list[UploadFile], place: Path) -> tuple[list[Path | None], list[str]]:
    """Write the valid images to files with generated names. Return a path or None, and an error, for each."""
    paths: list[Path | None] = []
    errors = []
    for number, file in enumerate(files):
        data = file.file.read(server.policy.image + 1)
        try:
            path = place / f"{number:04d}{sniff.check(data, server.policy, (file.filename or 'the image')[:200])}"
            path.write_bytes(data)
            paths.append(path)
            errors.append("")
        except BadData as error:
            paths.append(None)
            errors.append(str(error))
    return paths, errors


def _predict(
    server: ServerState, folder: Path, paths: list[Path], threshold: float | None, place: str
) -> tuple[list[ImageResult], str, float | None, float]:
    """Return the findings, the detector's name, the pixel threshold and the time in seconds."""
    from iadbe import api

    if server.model_cache is None:
        server.model_cache = ModelCache()
    if not server.model_cache.lock.acquire(timeout=MAX_WAIT):
        raise RequestRefused(503, "the server is scoring other images.", **{"Retry-After": "30"})
    try:
        model = server.model_cache.get(folder, server.device)
        began = time.perf_counter()
        found = list(api.predict(model, paths, threshold=threshold, device=server.device)) if paths else []
        return found, model.name, model.calibration.pixel_threshold, time.perf_counter() - began
    except BadData as error:
        raise BadData(str(error).replace(f"{place}/", "")) from error
    finally:
        server.model_cache.lock.release()


def _finding(finding: ImageResult, path: Path, limit: float | None, place: str, *, draw: bool) -> dict[str, Any]:
    score = finding.score if math.isfinite(finding.score) else None
    told: dict[str, Any] = {"score": score, "scaled": finding.scaled, "defective": finding.defective}
    told["note"] = finding.note
    told["error"] = finding.error.replace(f"{place}/", "")
    if draw and finding.heat is not None and finding.map is not None:
        shown = _downscale(read_rgb(path, finding.intensity))
        warm = _downscale(finding.heat)
        told |= {"heat": _data_uri(colormap.overlay(shown, warm)), "map": _data_uri(colormap.transparent(warm))}
        if limit is not None:
            told["mask"] = _data_uri(_downscale((finding.map >= limit).astype(np.uint8) * 255))
    return told


def _downscale(pixels: np.ndarray) -> np.ndarray:
    """Downscale an image or a map to at most MAX_SIDE pixels."""
    share = MAX_SIDE / max(pixels.shape[:2])
    if share >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _data_uri(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"
