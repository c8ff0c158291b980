"""Routes for fitted detectors stored with runs, and a cache of loaded ones. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from iadbe import registry
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.evaluation.calibration import read
from iadbe.web.limits import FairLock
from iadbe.web.run_cache import CachedRun
from iadbe.web.runs import Name, finite, values_of
from iadbe.web.state import Server, ServerState

if TYPE_CHECKING:
    from iadbe.running.model_folder import FittedDetector

router = APIRouter(tags=["models"])
CARD, TENSORS = "detector.json", "weights.safetensors"
MAX_LOADED = 2  # models held in memory


class Model(BaseModel):
    """A fitted detector."""

    id: str = Field(description="id of the run that fitted it")
    detector: str
    dataset: str
    task: str
    setting: str
    protocol: str
    seed: int
    date: str
    bytes: int = Field(description="size of its tensors")
    threshold: float | None = Field(description="score from which a part is rejected")
    look_threshold: float | None = Field(None, description="score from which a part is to be looked at")
    look_scaled: float | None = Field(None, description="that threshold on the scale 0–1")
    pixel_threshold: float | None
    how: str = Field(description="how the threshold was chosen")
    calibrated: bool = Field(description="with `iadbe calibrate`")
    values: dict[str, float | None] = Field(description="metrics of its run")


@router.get("/models", response_model=list[Model])
def models(server: Server) -> Any:
    """List the models, the newest first."""
    return newest(server, len(server.run_cache.now().runs))


def newest(server: ServerState, most: int, also: str = "") -> list[dict[str, Any]]:
    """Return the ``most`` newest models, and the model of the run ``also`` where it is not among them."""
    now, root = server.run_cache.now(), str(server.store.root)
    runs = now.once("runs by date", lambda: sorted(now.runs.values(), key=_date, reverse=True))
    # whether there is a card is asked first, without a Path: of a large store most runs have kept no model
    having = (s for s in runs if os.path.isfile(f"{root}/{s.folder}/model/{CARD}"))
    found = list(islice((m for s in having if (m := _model(server, s)) is not None), most))
    if also and all(m["id"] != also for m in found):
        found += [m for s in runs if s.id == also and (m := _model(server, s)) is not None]
    return found


@router.get("/models/{run}", response_model=Model)
def model(server: Server, run: Name) -> Any:
    """Return one model."""
    found = _model(server, server.run_cache.run(run))
    if found is None:
        raise UnknownName(f"the run {run} has no stored model.")
    return found


class ModelCache:
    """The most recently used models. Hold ``lock`` while using one."""

    def __init__(self) -> None:
        self.lock = FairLock()
        self._loaded: OrderedDict[tuple[str, str], FittedDetector] = OrderedDict()

    def get(self, folder: Path, device: str) -> FittedDetector:
        """Return a model, from memory if its files have not changed. Call it with ``lock`` held."""
        from iadbe import api  # here, because it imports torch, which takes seconds

        stamp = "|".join(str((folder / name).stat().st_mtime_ns) for name in (CARD, TENSORS))
        key = (str(folder), stamp)
        if key not in self._loaded:
            card = _card(folder)
            if card is None or card["detector"] not in registry.names("detectors"):
                raise BadConfig("this model needs a detector that is not registered on this server.")
            self._loaded[key] = api.load(folder, device)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def folder_of(server: ServerState, run: str) -> Path:
    """Return the folder of a run's model. Raises :class:`UnknownName` where the run has none."""
    folder = server.run_cache.path(run) / "model"
    if not (folder / CARD).is_file() or not (folder / TENSORS).is_file():
        raise UnknownName(f"the run {run} has no stored model. `iadbe train` stores one.")
    return folder


def _date(cached: CachedRun) -> tuple[str, str]:
    return str(cached.result.environment.get("date", "")), cached.id


def _model(server: ServerState, cached: CachedRun) -> dict[str, Any] | None:
    folder = server.store.root / cached.folder / "model"
    try:
        card = _card(folder)
    except BadData:
        return None
    if card is None:
        return None
    spec, calibration = cached.result.spec, card.get("calibration") or {}
    words = {n: getattr(spec, n) for n in ("detector", "dataset", "task", "setting", "protocol", "seed")}
    return {
        **words,
        "id": cached.id,
        "date": str(cached.result.environment.get("date", "")),
        "bytes": (folder / TENSORS).stat().st_size if (folder / TENSORS).is_file() else 0,
        "threshold": calibration.get("threshold"),
        "look_threshold": calibration.get("look_threshold"),
        "look_scaled": _look_scaled(calibration),
        "pixel_threshold": calibration.get("pixel_threshold"),
        "how": str(calibration.get("how", "")),
        "calibrated": bool(calibration.get("good")),
        "values": values_of(cached.result),
    }


def _look_scaled(card: Mapping[str, Any]) -> float | None:
    """Return the look threshold on the display scale; None where there is none, or the card is damaged."""
    try:
        found = read(card)
        return None if found.look_threshold is None else finite(found.scaled(found.look_threshold))
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        return None


def _card(folder: Path) -> dict[str, Any] | None:
    """Return a model's card; None where there is no model. Raises :class:`BadData` where it is damaged."""
    try:
        found: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return found if isinstance(found.get("detector"), str) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise BadData(f"{folder / CARD} cannot be read: {error}.") from error
