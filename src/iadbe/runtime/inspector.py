"""An exported detector as a function of images, by ONNX Runtime or OpenVINO.

    from iadbe.runtime.inspector import Inspector

    inspector = Inspector("bottle.onnx")
    found = inspector(image)  # (H, W, 3) uint8 RGB
    print(found.score, found.verdict)

Neither torch nor timm is imported, and IADBE's detectors are not needed: the file holds everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadConfig, BadData, Missing, UnknownName, did_you_mean
from iadbe.runtime import regions
from iadbe.runtime.deep_values import given_values, intensity_of
from iadbe.runtime.openvino_core import openvino_core
from iadbe.runtime.regions import Region, verdict_by_regions
from iadbe.runtime.verdict import VERDICTS

KEY = "iadbe"  # of the file's metadata: the card, as JSON
FORMAT = 1  # of the card
ENGINES = ("onnxruntime", "openvino")
ENDINGS = {".onnx": ENGINES, ".xml": ("openvino",)}  # of files, with the engines that read them
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """What an exported detector finds in one image."""

    score: float  # raw: higher is more anomalous
    probability: float | None  # on the calibrated scale in [0, 1], 0.5 at the threshold; None without a calibration
    verdict: str  # good, look or reject; empty without a threshold
    anomaly_map: np.ndarray | None = field(repr=False)  # (H, W) float32, raw, at the image's size; None without maps
    regions: tuple[Region, ...] | None = None  # that count, by a rule for regions; None: the model has none


class Inspector:
    """A loaded file. Calling it scores one image."""

    def __init__(self, file: str | Path, engine: str = "auto", threads: int = 0) -> None:
        """Load an exported file.

        Args:
            file: an ONNX file that `iadbe export` wrote, or the .xml of OpenVINO's pair
            engine: onnxruntime, openvino, or auto: the first of them that is installed and reads the file
            threads: of the engine; 0: as many as it takes by itself
        """
        self.file = Path(file)
        if not self.file.is_file():
            raise BadConfig(f"there is no file {self.file}. `iadbe export MODEL` makes one.")
        self.engine = _engine(engine, self.file)
        load = _onnxruntime if self.engine == "onnxruntime" else _openvino
        try:
            self._run, card = load(self.file, threads)
        except Exception as error:  # engines raise errors of their own for damaged files
            why = " ".join(str(error).split())[:160]
            raise BadData(f"{self.file} cannot be loaded by {self.engine}: {why}") from error
        self.card = _card(card, self.file)
        try:
            regions.read(self.card["calibration"].get("rule"))
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise BadData(f"{self.file} has a card that cannot be read ({error}). Export the model again.") from error
        self.intensity = intensity_of(self.card)  # of deep images; None: the file takes 8-bit images

    def batch(self, images: np.ndarray) -> list[Inspection]:
        """Score images of one size, (N, H, W, 3) uint8 RGB.

        A file of a model of deep images (``intensity``) takes their raw values too, (N, H, W, C) of any other type.
        Raises :class:`BadData` for other arrays, for images of other proportions than the region of the model, and
        where the file gives a score or a map that is not finite.
        """
        if self.intensity is not None:
            images = given_values(images, self.intensity)
        elif images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise BadData(f"images are (N, H, W, 3) of uint8, not {images.shape} of {images.dtype}.")
        found = self._run(np.ascontiguousarray(images))
        maps = found.get("anomaly_map")
        if not np.isfinite(found["score"]).all() or (maps is not None and not np.isfinite(maps).all()):
            raise BadData(self._why_not_finite(*images.shape[1:3]))
        scaled = [float(value) for value in found["probability"]]
        inspections = [
            Inspection(
                float(found["score"][i]),
                None if np.isnan(scaled[i]) else scaled[i],
                VERDICTS[int(found["verdict"][i])],
                None if maps is None else maps[i],
            )
            for i in range(len(images))
        ]
        return [decided(one, self.card["calibration"]) for one in inspections]

    def _why_not_finite(self, height: int, width: int) -> str:
        if self.card.get("ignores"):
            return (
                "the model ignores parts of its images, and an image of "
                f"{width} x {height} pixels does not have their proportions."
            )
        return f"{self.file.name} gives a score or a map that is not finite for this image, so there is no verdict."

    def __call__(self, image: np.ndarray) -> Inspection:
        """Score one image, (H, W, 3) uint8 RGB."""
        return self.batch(image[None])[0]


def decided(found: Inspection, calibration: Mapping[str, Any]) -> Inspection:
    """Return an inspection with its regions and the verdict by them, where the calibration has a rule for regions."""
    threshold, rule = calibration.get("pixel_threshold"), regions.read(calibration.get("rule"))
    if rule is None or found.anomaly_map is None or threshold is None:
        return found
    look = calibration.get("look_pixel_threshold")
    verdict, some = verdict_by_regions(found.anomaly_map, rule, threshold, look)
    return replace(found, verdict=verdict, regions=tuple(some))


def _engine(name: str, file: Path) -> str:
    if name != "auto" and name not in ENGINES:
        raise UnknownName(
            f"there is no engine {name!r}.{did_you_mean(name, ENGINES)} There are: auto, {', '.join(ENGINES)}."
        )
    able = ENDINGS.get(file.suffix, ENGINES)
    if name != "auto" and name not in able:
        raise BadConfig(f"{file.name} is read by {able[0]} alone, not by {name}. `iadbe export --to onnx` suits both.")
    for engine in able if name == "auto" else (name,):
        if find_spec(engine) is not None:
            return engine
    wanted = able[0] if name == "auto" else name
    raise Missing(f"{file.name} is run by {wanted}, which is not installed. Install it with: pip install {wanted}")


def _card(text: str | None, file: Path) -> dict[str, Any]:
    try:
        card = json.loads(text or "")
    except ValueError as error:
        raise BadData(
            f"{file} was not written by IADBE: it has no card. `iadbe export MODEL` makes such files."
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise BadConfig(f"{file} was written by another version of IADBE.")
    return card


def _onnxruntime(file: Path, threads: int) -> tuple[Run, str | None]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> Mapping[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"image": images}), strict=True))

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def _openvino(file: Path, threads: int) -> tuple[Run, str | None]:
    core = openvino_core()
    model = core.read_model(str(file))
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: np.ndarray) -> Mapping[str, np.ndarray]:
        found = compiled(images)
        return {name: np.array(found[k]) for k, name in enumerate(names)}  # a copy: the engine uses its buffers again

    info = model.get_rt_info(["framework", KEY]) if model.has_rt_info(["framework", KEY]) else None
    return run, None if info is None else str(info.value if hasattr(info, "value") else info)
