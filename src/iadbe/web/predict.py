"""Route that scores uploaded images with a model of the store."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Form, UploadFile
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from iadbe import system
from iadbe.errors import BadData, IadbeError
from iadbe.files import pages
from iadbe.files.image_io import read_rgb
from iadbe.monitoring.monitor import Monitor
from iadbe.report import colormap
from iadbe.runtime.regions import LISTED
from iadbe.web import sniff
from iadbe.web.images import png
from iadbe.web.models import folder_of
from iadbe.web.policy import Policy
from iadbe.web.problems import RequestRefused
from iadbe.web.runs import finite
from iadbe.web.state import ClientAddress, Server, ServerState

if TYPE_CHECKING:
    from iadbe.running.model_folder import FittedDetector

router = APIRouter(tags=["predict"])
MAX_SIDE = 1024  # pixels of the longer side of a returned image
MAX_WAIT = 60.0  # seconds that an image waits for its turn
Threshold = Annotated[
    float | None, Form(description="image threshold; the model's own by default", allow_inf_nan=False)
]
log = logging.getLogger("iadbe.web")


class FoundRegion(BaseModel):
    """A connected region of the anomaly map."""

    area: int = Field(description="pixels of the image")
    box: tuple[int, int, int, int] = Field(description="x, y, width and height in pixels of the image")
    peak: float = Field(description="highest value of the map, raw")
    zone: str | None = Field(None, description="that its highest pixel is in")


class ImagePrediction(BaseModel):
    """Prediction for one image."""

    name: str
    score: float | None = Field(description="anomaly score; null: the image could not be scored")
    scaled: float | None = Field(description="score scaled to 0–1, with 0.5 at the model's threshold")
    defective: bool | None = Field(description="rejected; null: no threshold, or the position was not found")
    verdict: Literal["good", "look", "reject"] | None = Field(None, description="null where defective is")
    position_found: bool | None = Field(None, description="of the part; null: the model does not register images")
    regions: list[FoundRegion] | None = Field(None, description="that count, of models whose verdict follows from them")
    error: str = Field("", description="why the image could not be scored")
    note: str = Field("", description="where a deep image does not fit the range that it was scaled by")
    heat: str | None = Field(None, description="data URI of the heat map over the image")
    map: str | None = Field(None, description="data URI of the heat map, transparent at low scores")
    mask: str | None = Field(None, description="data URI of the pixels above the pixel threshold")


class PredictResponse(BaseModel):
    """Predictions for all images of a request."""

    model: str
    detector: str
    threshold: float | None
    look_threshold: float | None = Field(None, description="score from which a part is to be looked at")
    milliseconds: float = Field(description="mean time of one image, with decoding and drawing")
    findings: list[ImagePrediction] = Field(description="in the order of the files")


@router.post("/predict", response_model=PredictResponse)
def predict(
    server: Server,
    client: ClientAddress,
    model: Annotated[str, Form(max_length=200, description="id of the run that fitted it")],
    files: list[UploadFile],
    threshold: Threshold = None,
    images: Annotated[bool, Form(description="return heat maps")] = True,
    pictures: Annotated[bool | None, Form(description="old name of images", deprecated=True)] = None,
    history: Annotated[bool, Form(description="count the images for drift, if the model is calibrated")] = True,
) -> Any:
    """Score images of any known format. An image that cannot be read gets an error instead of a score.

    Images are scored one after the other, and each result is sent before the next image is read.
    """
    folder, policy = folder_of(server, model), server.policy
    if len(files) > policy.images:
        raise RequestRefused(413, f"{len(files)} images are too many at once; {policy.images} are allowed.")
    if seconds := server.predict_limiter.take(client, len(files)):
        detail = f"{policy.predict_rate} images a minute are allowed. Try again in {seconds} s."
        raise RequestRefused(429, detail, **{"Retry-After": str(seconds)})
    if not server.predict_slots.acquire(blocking=False):
        raise RequestRefused(503, "too many prediction requests are waiting.", **{"Retry-After": "10"})
    with ExitStack() as stack:
        stack.callback(server.predict_slots.release)
        upload_folder = Path(stack.enter_context(TemporaryDirectory(prefix="iadbe-")))
        uploads = _save_images(policy, files, upload_folder)
        if (more := len(uploads) - len(files)) and (seconds := server.predict_limiter.take(client, more)):
            detail = f"{policy.predict_rate} images a minute are allowed, and pages count. Try again in {seconds} s."
            raise RequestRefused(429, detail, **{"Retry-After": str(seconds)})
        job = _Prediction(server, folder, model, threshold, draw=images if pictures is None else pictures)
        if history and not server.read_only:
            job.monitor = Monitor(folder, "server")
            stack.callback(job.monitor.flush)
        if any(not upload.error for upload in uploads):
            job.open()  # before the response begins, so that its errors have a status
        return _Stream(job.stream(uploads), stack.pop_all(), media_type="application/json")


class _Stream(StreamingResponse):
    """A stream that frees its resources when it has been sent, or when its client has gone."""

    def __init__(self, content: Iterator[str], stack: ExitStack, media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._stack = stack

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stack.close()


class _Upload(NamedTuple):
    """An uploaded image: a file, or the reason why it is not one."""

    name: str
    path: Path
    error: str


class _Prediction:
    """One request. Each image is read, scored and drawn in a turn of its own, which bounds the memory."""

    def __init__(self, server: ServerState, folder: Path, model: str, threshold: float | None, *, draw: bool) -> None:
        self.server, self.folder, self.model = server, folder, model
        self.threshold, self.draw = threshold, draw
        self.detector = ""
        self.limits: dict[str, float | None] = {"threshold": threshold, "look_threshold": None}
        self.seconds: list[float] = []
        self.monitor: Monitor | None = None  # that counts the images for drift

    def open(self) -> None:
        """Load the model, and take its thresholds where none is given."""
        with self._turn() as fitted:
            self.detector = fitted.name
            if self.threshold is None:
                own = fitted.calibration
                self.limits = {"threshold": own.threshold, "look_threshold": own.look_threshold}

    def stream(self, uploads: Iterable[_Upload]) -> Iterator[str]:
        """Yield the response, image by image."""
        head = {"model": self.model, "detector": self.detector, **self.limits}
        yield json.dumps(head)[:-1] + ', "findings": ['
        for number, upload in enumerate(uploads):
            yield (", " if number else "") + json.dumps({"name": upload.name, **self._finding(upload)}, allow_nan=False)
            if pages.file_of(upload.path) == upload.path:  # of pages, the folder is removed with the request
                system.remove(upload.path)
        mean = round(1000 * sum(self.seconds) / max(1, len(self.seconds)), 2)
        yield f'], "milliseconds": {mean}}}'

    @contextmanager
    def _turn(self) -> Iterator[FittedDetector]:
        """Hold the loaded model for one image."""
        cache = self.server.model_cache
        if not cache.lock.acquire(MAX_WAIT):
            raise RequestRefused(503, "the server is scoring other images.", **{"Retry-After": "30"})
        try:
            yield cache.get(self.folder, self.server.device)
        finally:
            cache.lock.release()

    def _finding(self, upload: _Upload) -> dict[str, Any]:
        nothing = dict.fromkeys(("score", "scaled", "defective", "verdict", "regions", "heat", "map", "mask"))
        if upload.error:
            return {**nothing, "error": upload.error}
        began = time.perf_counter()
        try:
            with self._turn() as fitted:
                return {**nothing, **self._score(fitted, upload)}
        except IadbeError as error:
            return {**nothing, "error": str(error).replace(f"{upload.path.parent}{os.sep}", "")}
        except Exception as error:  # the response has begun, so the bug is reported with the image
            number = secrets.token_hex(4)
            log.error("bug %s while an image was scored", number, exc_info=error)
            return {**nothing, "error": f"this is a bug. The server's log has the details under {number}."}
        finally:
            self.seconds.append(time.perf_counter() - began)

    def _score(self, fitted: FittedDetector, upload: _Upload) -> dict[str, Any]:
        from iadbe import api

        (result,) = api.predict(
            fitted, upload.path, threshold=self.threshold, device=self.server.device, map_side=MAX_SIDE,
            measure=self.monitor is not None,
        )  # fmt: skip
        error = result.error.replace(f"{upload.path.parent}{os.sep}", "").replace(upload.path.name, upload.name)
        found: dict[str, Any] = {"score": finite(result.score), "scaled": finite(result.scaled), "error": error}
        found |= {"defective": result.defective, "position_found": result.position_found, "note": result.note}
        found["verdict"] = result.verdict or None
        if self.monitor is not None and not result.error:
            self.monitor.record(result.channels, result.verdict)
        found["regions"] = None if result.regions is None else [one.card() for one in result.regions[:LISTED]]
        if self.draw and result.heat is not None and result.map is not None:
            shown, heat = _downscale(read_rgb(upload.path, result.intensity)), result.heat
            drawn, region = colormap.overlay(shown, heat), result.region_at(*shown.shape[:2])
            drawn = drawn if region is None else colormap.greyed(drawn, region)
            layer = colormap.transparent(heat, result.region_at(*heat.shape))
            found |= {"heat": _data_uri(drawn), "map": _data_uri(layer)}
            if (limit := fitted.calibration.pixel_threshold) is not None:
                found["mask"] = _data_uri((result.map >= limit).astype(np.uint8) * 255)
        return found


def _save_images(policy: Policy, files: list[UploadFile], folder: Path) -> list[_Upload]:
    """Write the valid images to files with generated names.

    Raises :class:`RequestRefused` where all images together have too many pixels.
    """
    uploads: list[_Upload] = []
    pixels = 0
    for number, file in enumerate(files):
        name = (file.filename or "image")[:200]
        data = file.file.read(policy.image + 1)
        try:
            header = sniff.check(data, policy, name)
        except BadData as error:
            uploads.append(_Upload(name, folder / "none", str(error)))
            continue
        path = folder / f"{number:04d}{header.suffix}"
        path.write_bytes(data)
        sizes = sniff.page_pixels(path, policy) or [header.pixels]
        if len(uploads) + len(sizes) > policy.images:
            many = f"more than {policy.images}" if len(sizes) > policy.images else f"{len(sizes)}"
            raise RequestRefused(413, f"{name} has {many} pages, which are more than one request may hold.")
        pixels += sum(sizes)
        if pixels > policy.request_pixels:
            raise RequestRefused(413, f"{policy.request_pixels / 1e6:g} million pixels are allowed in one request.")
        uploads += _pages(policy, name, path, sizes)
    return uploads


def _pages(policy: Policy, name: str, path: Path, sizes: list[int]) -> list[_Upload]:
    """Return an uploaded file's image, or the pages of a TIFF that has several; with an error where it is too large."""
    names = [(name, path)]
    if len(sizes) > 1:
        names = [(pages.name(name, n), path.with_name(pages.name(path.name, n))) for n in range(len(sizes))]
    found = []
    for (shown, page), count in zip(names, sizes, strict=True):
        error = "" if count <= policy.pixels else sniff.too_large(shown, f"{count / 1e6:.3g} million pixels", policy)
        found.append(_Upload(shown, page, error))
    return found


def _downscale(pixels: np.ndarray) -> np.ndarray:
    """Downscale an image or a map to at most MAX_SIDE pixels."""
    share = MAX_SIDE / max(pixels.shape[:2])
    if share >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _data_uri(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"
