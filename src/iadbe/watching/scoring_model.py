"""A model, whether a folder or an exported file, as something that scores images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iadbe.monitoring.monitor import Monitor
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
    monitor: Monitor | None = None  # that counts the images for `iadbe drift`; flush it in the end


def load_model(
    path: Path, engine: str = "torch", device: str = "auto", threshold: float | None = None, source: str = ""
) -> ScoringModel:
    """Load a model; an exported file takes neither torch nor a device.

    Args:
        path: a model's folder or a run's, or a file that `iadbe export` wrote
        engine: torch, onnxruntime or openvino; for an exported file torch means the first engine that is installed
        device: of a folder's model
        threshold: score from which a part is rejected; None: the model's own
        source: who scores images, if they are to be counted for `iadbe drift`: predict or watch; a folder's only
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
    from iadbe.running.model_folder import resolve_folder

    model = api.load(path, device, engine)
    score = partial(api.score, model, threshold=threshold, device=device, measure=bool(source))
    if not source:
        return ScoringModel(model.name, model.calibration, score, model.note)
    monitor = Monitor(resolve_folder(path), source)

    def counted(images: list[InputImage]) -> Iterator[Result]:
        for result in score(images):
            if not result.error:
                monitor.record(result.channels, result.verdict)
            yield result

    return ScoringModel(model.name, model.calibration, counted, model.note, monitor)
