"""Routes on drift: do the images of a model in use still resemble those of its calibration?"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from iadbe.errors import BadData, UnknownName
from iadbe.monitoring import history, reference
from iadbe.monitoring.findings import findings
from iadbe.results.table_cache import file_stamp
from iadbe.web.models import folder_of, newest
from iadbe.web.runs import Name
from iadbe.web.state import Server, ServerState

router = APIRouter(tags=["drift"])
MOST = 50  # newest models that are listed
HOURS = 168  # last hours that are returned


class DriftHour(BaseModel):
    """The images of one hour."""

    hour: str = Field(description="in UTC, such as 2026-05-01T13")
    images: int
    rejected: float = Field(description="share of the images")
    evidence: float = Field(description="Shiryaev-Roberts statistic after this hour; an alarm from 1000 on")


class DriftChannel(BaseModel):
    """One of the numbers of an image that are watched."""

    channel: str
    words: str
    evidence: float
    before: float = Field(description="mean of the calibration")
    now: float = Field(description="mean of the last 24 hours with images")


class Drift(BaseModel):
    """What the hours of a model say."""

    run: str
    alarm: str | None = Field(description="hour of the first alarm; null: there is none")
    p: float = Field(description="p-value of exchangeability with the calibration; holds at any time")
    images: int
    sentence: str
    hours: list[DriftHour]
    channels: list[DriftChannel] = Field(description="the most moved first")


@router.get("/models/{run}/drift", response_model=Drift)
def drift(server: Server, run: Name) -> Any:
    """Compare the hours of a model's use with its calibration (`iadbe drift`)."""
    folder = folder_of(server, run)
    if reference.read(folder) is None:
        raise UnknownName(f"the run {run} has no calibration with at least {reference.LEAST} good images.")
    return {"run": run, **_known(folder)}


def _known(folder: Path) -> dict[str, Any]:
    """Return the findings of a model, which are computed anew when its files have changed or an hour is over."""
    stamps = "|".join(file_stamp(folder / name) for name in (reference.FILE, history.FILE))
    return _computed(folder, stamps, history.hour_of(datetime.now(UTC)))


@lru_cache(maxsize=2 * MOST)
def _computed(folder: Path, stamps: str, hour: str) -> dict[str, Any]:
    return findings(folder).card(HOURS)


def watched(server: ServerState) -> list[dict[str, Any]]:
    """Return the newest calibrated models with what their hours say, or with ``error``."""
    found = []
    for model in newest(server, MOST):
        folder: Path = folder_of(server, model["id"])
        try:
            if reference.read(folder) is not None:
                found.append({**model, **_known(folder), "error": ""})
        except BadData as error:
            found.append({**model, "error": str(error)})
    return found
