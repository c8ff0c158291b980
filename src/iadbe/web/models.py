"""The fitted detectors that runs have kept, as safetensors and a card; nothing is ever unpickled."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from iadbe import registry
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.web.house import Here, House
from iadbe.web.library import Shelved
from iadbe.web.runs import Name, values_of

if TYPE_CHECKING:
    from iadbe.running.model_folder import FittedDetector

router = APIRouter(tags=["models"])
CARD, TENSORS = "detector.json", "weights.safetensors"
LOADED = 2  # models in memory


class Model(BaseModel):
    """A fitted detector."""

    id: str = Field(description="of the run that has made it")
    detector: str
    dataset: str
    task: str
    setting: str
    protocol: str
    seed: int
    date: str
    bytes: int = Field(description="of its tensors")
    threshold: float | None
    pixel_threshold: float | None
    how: str = Field(description="where the threshold comes from")
    calibrated: bool = Field(description="on images of its own, with `iadbe calibrate`")
    values: dict[str, float | None] = Field(description="its run's metrics")


@router.get("/models", response_model=list[Model])
def models(house: Here) -> Any:
    """List the models, the newest first."""
    found = [m for s in house.library.now().runs.values() if (m := _model(house, s)) is not None]
    return sorted(found, key=lambda m: (m["date"], m["id"]), reverse=True)


def newest(house: House, most: int, also: str = "") -> list[dict[str, Any]]:
    """Return the newest models, few enough for a page, and one more where it is asked for."""
    runs = sorted(house.library.now().runs.values(), key=_date, reverse=True)
    found = list(islice((m for s in runs if (m := _model(house, s)) is not None), most))
    if also and all(m["id"] != also for m in found):
        found += [m for s in runs if s.id == also and (m := _model(house, s)) is not None]
    return found


@router.get("/models/{run}", response_model=Model)
def model(house: Here, run: Name) -> Any:
    """Return one model."""
    found = _model(house, house.library.run(run))
    if found is None:
        raise UnknownName(f"the run {run} has kept no model.")
    return found


class Fitted:
    """The models in memory: the ones used last. One thread at a time may use them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str], FittedDetector] = OrderedDict()

    def get(self, folder: Path, device: str) -> FittedDetector:
        """Return a model, from memory if its files have not changed. Call it with the lock held."""
        from iadbe import api  # imports torch, which takes seconds: only who predicts pays for it

        stamp = "|".join(str((folder / name).stat().st_mtime_ns) for name in (CARD, TENSORS))
        key = (str(folder), stamp)
        if key not in self._loaded:
            card = _card(folder)
            if card is None or card["detector"] not in registry.names("detectors"):
                raise BadConfig("this model needs a detector that is not on the shelf of this server.")
            self._loaded[key] = api.load(folder, device)
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def folder_of(house: House, run: str) -> Path:
    """Return the folder of a model."""
    folder = house.library.path(run) / "model"
    if not (folder / CARD).is_file() or not (folder / TENSORS).is_file():
        raise UnknownName(f"the run {run} has kept no model. `iadbe train` keeps one.")
    return folder


def _date(shelved: Shelved) -> tuple[str, str]:
    return str(shelved.result.environment.get("date", "")), shelved.id


def _model(house: House, shelved: Shelved) -> dict[str, Any] | None:
    folder = house.store.root / shelved.folder / "model"
    try:
        card = _card(folder)
    except BadData:
        return None
    if card is None:
        return None
    spec, calibration = shelved.result.spec, card.get("calibration") or {}
    words = {n: getattr(spec, n) for n in ("detector", "dataset", "task", "setting", "protocol", "seed")}
    return {
        **words,
        "id": shelved.id,
        "date": str(shelved.result.environment.get("date", "")),
        "bytes": (folder / TENSORS).stat().st_size if (folder / TENSORS).is_file() else 0,
        "threshold": calibration.get("threshold"),
        "pixel_threshold": calibration.get("pixel_threshold"),
        "how": str(calibration.get("how", "")),
        "calibrated": bool(calibration.get("good")),
        "values": values_of(shelved.result),
    }


def _card(folder: Path) -> dict[str, Any] | None:
    """Return a model's card, None where there is no model."""
    try:
        found: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return found if isinstance(found.get("detector"), str) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise BadData(f"{folder / CARD} cannot be read: {error}.") from error
