"""A model, whether a folder or an exported file, as something that scores images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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


def load_model(path: Path, engine: str = "torch", device: str = "auto", threshold: float | None = None) -> ScoringModel:
    """Load a model; an exported file takes neither torch nor a device.

    Args:
        path: a model's folder or a run's, or a file that `iadbe export` wrote
        engine: torch, onnxruntime or openvino; for an exported file torch means the first engine that is installed
        device: of a folder's model
        threshold: score from which a part is rejected; None: the model's own
    """
    if path.suffix in ENDINGS:
        from iadbe.evaluation.calibration import read
        from iadbe.runtime.inspector import Inspector
        from iadbe.runtime.prediction import results_of

        inspector = Inspector(path, "auto" if engine == "torch" else engine)
        card = inspector.card
        by_file = partial(results_of, inspector, threshold=threshold)
        return ScoringModel(card["detector"], read(card["calibration"]), by_file)
    from iadbe import api

    model = api.load(path, device, engine)
    score = partial(api.score, model, threshold=threshold, device=device)
    return ScoringModel(model.name, model.calibration, score, model.note)
