"""A model that a command line names, as something that scores images: a model's folder, a run, or an exported file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.runtime.inspector import ENDINGS

if TYPE_CHECKING:
    from iadbe.api import ImageResult
    from iadbe.evaluation.calibration import Calibration
    from iadbe.files.input_images import InputImage
    from iadbe.runtime.prediction import FileResult

    Result = ImageResult | FileResult


class ScoringModel(NamedTuple):
    """A model, whether a folder or an exported file, as what scores images."""

    name: str  # of its detector
    calibration: Calibration
    score: Callable[[list[InputImage]], Iterator[Result]]
    note: str = ""


def load_model(path: Path, values: Mapping[str, Any]) -> ScoringModel:
    """Load a model by the options engine, device and threshold; an exported file takes neither torch nor a device."""
    if path.suffix in ENDINGS:
        from iadbe.evaluation.calibration import read
        from iadbe.runtime.inspector import Inspector
        from iadbe.runtime.prediction import results_of

        inspector = Inspector(path, "auto" if values["engine"] == "torch" else values["engine"])
        card = inspector.card
        by_file = partial(results_of, inspector, threshold=values["threshold"])
        return ScoringModel(card["detector"], read(card["calibration"]), by_file)
    from iadbe import api

    model = api.load(path, values["device"], values["engine"])
    score = partial(api.score, model, threshold=values["threshold"], device=values["device"])
    return ScoringModel(model.name, model.calibration, score, model.note)


def model_folder(text: str, store: str) -> Path:
    """Return the folder that a path, or the beginning of a run's id, means."""
    path = system.user_path(text)
    if path.exists() or path.suffix in (".ckpt", ".pt", ".pth", *ENDINGS):
        return path
    if "/" in text or "\\" in text:
        raise BadConfig(f"there is no folder {path.absolute()}. Give the folder that `iadbe train` made.")
    from iadbe.running.store import Store

    return Store(store).find(text)
