"""An exported model against torch: CPU time of one image, size, deviation, at one thread.

The model is exported as fp32, fp16 and int8. Each image is scored by ``iadbe.predict`` with torch and by each file with
ONNX Runtime and OpenVINO, in turn, so that a busy machine slows all; medians of CPU time. Then the backbone alone. int8
is scaled by images of ``--good``.

Run: python benchmarks/export.py MODEL --good data/bottle/train/good --images data/bottle/test [--count 20]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from PIL import Image

import iadbe
from iadbe.data.images import Batch
from iadbe.exporting.onnx_file import SCOPES
from iadbe.exporting.result import write
from iadbe.exporting.trial import Trial
from iadbe.runtime.inspector import ENGINES, Inspector

PRECISIONS = ("fp32", "fp16", "int8")


def pictures(folder: Path, count: int) -> list[np.ndarray]:
    """Return evenly chosen images of a folder."""
    files = sorted(folder.rglob("*.png"))
    return [np.asarray(Image.open(f).convert("RGB")) for f in files[:: max(1, len(files) // count)][:count]]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU milliseconds and what was computed."""
    began = time.process_time()
    found = run()
    return 1000 * (time.process_time() - began), found


def backbone_of(file: Path, folder: Path) -> tuple[Path, list[str], list[str]]:
    """Write the backbone of an exported file as a file of its own; return it with its inputs and outputs."""
    graph = onnx.load(file).graph
    inside = {n.name for n in graph.node if any(p.key == SCOPES and "'detector.backbone'" in p.value
                                                for p in n.metadata_props)}  # fmt: skip
    made = {name: n.name for n in graph.node for name in n.output}
    ends: list[list[str]] = []
    for own in (True, False):  # what goes in, what comes out
        taken = {i for n in graph.node if (n.name in inside) is own for i in n.input if i in made}
        ends.append(sorted(i for i in taken if (made[i] in inside) is not own))
    target = folder / f"backbone_{file.name}"
    onnx.utils.extract_model(str(file), str(target), *ends)
    return target, *ends


def backbone_times(file: Path, shape: Sequence[int], repeats: int = 15) -> dict[str, float]:
    """Return the median CPU milliseconds of a backbone's file by engine, for noise of a shape."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    noise = np.random.default_rng(0).random(tuple(shape), dtype=np.float32)
    feed = {one.name: noise for one in session.get_inputs()}
    runs = {"onnxruntime": lambda: session.run(None, feed), "openvino": lambda: compiled(feed)}
    return {name: float(np.median([timed(run)[0] for _ in range(repeats)][2:])) for name, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--good", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    fitted = iadbe.load(given.model, "cpu")
    shown, good = pictures(given.images, given.count), pictures(given.good, 16)
    side = fitted.detector.view.shape
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = {p: write(fitted, folder / f"{p}.onnx", images=good, precision=p, allowed=["noncommercial"],
                          trial=Trial(force=True)).file for p in PRECISIONS}  # fmt: skip
        runs: dict[tuple[str, str], Callable[[np.ndarray], Any]] = {
            ("torch", "fp32"): lambda image: next(iter(iadbe.predict(fitted, [image], device="cpu", batch=1)))
        }
        runs |= {(e, p): Inspector(file, e, 1) for p, file in files.items() for e in ENGINES}
        times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        found: dict[tuple[str, str], list[Any]] = {key: [] for key in runs}
        for number, image in enumerate(shown):
            for key, run in runs.items():
                ms, one = timed(lambda run=run, image=image: run(image))
                if number:  # the first allocates memory
                    times[key].append(ms)
                found[key].append(one)
        first = ("torch", "fp32")
        truth = np.array([one.score for one in found[first]])
        print("| | CPU ms | ratio | MB | scores | maps |\n|---|---:|---:|---:|---:|---:|")
        for key in runs:
            ms, reference = float(np.median(times[key])), float(np.median(times[first]))
            scores = np.abs(np.array([one.score for one in found[key]]) - truth).max() / truth.max()
            maps = "" if key == first else _maps_apart(found[key], found[first])
            size = "" if key == first else f"{files[key[1]].stat().st_size / 1e6:.1f}"
            print(f"| {' '.join(key)} | {ms:.1f} | {ms / reference:.2f} | {size} | {scores:.1e} | {maps} |")
        batch = Batch(torch.rand(1, 3, *side))
        with torch.no_grad():
            own = float(np.median([timed(lambda: fitted.detector.backbone(batch))[0] for _ in range(15)]))
        print(f"backbone alone: torch {own:.1f}")
        for precision in ("fp32", "int8"):
            alone = backbone_times(backbone_of(files[precision], folder)[0], (1, 3, *side))
            print(f"backbone alone, {precision}: " + ", ".join(f"{name} {ms:.1f}" for name, ms in alone.items()))


def _maps_apart(found: list[Any], truth: list[Any]) -> str:
    """Return the largest difference of maps from torch's, relative to the largest value."""
    pairs = [(one.anomaly_map, other.map) for one, other in zip(found, truth, strict=True)]
    if any(a is None or b is None for a, b in pairs):
        return ""
    return f"{max(np.abs(a - b).max() for a, b in pairs) / max(b.max() for _, b in pairs):.1e}"


if __name__ == "__main__":
    main()
