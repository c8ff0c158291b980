"""Every registered detector on a GPU: does it run there, do its scores equal the CPU's, what does it cost?

Each detector is made with random weights, fitted on the device to drawn images for a few steps, and scores other
drawn images there. The fitted detector is then copied to the CPU and scores the same images. The largest difference
between the scores is given as a share of their spread on the CPU (their largest minus their smallest), that of maps
likewise. Up to the tolerance it counts as equal. TF32 is off, because it rounds to ten bits. Time and the peak of the
device's memory are those of the fit and of one image's prediction, after two images to warm up. A detector that fails
is a row of the table with the error, and the script ends with status 1 if there is one, or a difference above the
tolerance.

Run: python benchmarks/gpu.py [--device cuda] [--detectors padim,patchcore] [--size 256] [--minutes 9]
"""

from __future__ import annotations

import argparse
import copy
import resource
import sys
import time
import traceback
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.detector import Detector
from iadbe.errors import Missing
from iadbe.parameters import complete
from iadbe.registry import card, load, names
from iadbe.types import TrainingImage, TrainingLabel

SHORT = {"weights": "none", "epochs": 1, "steps": 4, "batch": 4}
OWN = {  # the diffusion model of RealNet's paper takes hours on a CPU
    "winclip": {"model": "ViT-S-32-alt"},
    "realnet": {
        "size": 64,
        "width": 32,
        "diffusion_batch": 4,
        "generated": 16,
        "selection": 2,
        "channels": (64, 64, 64, 64),
        "residuals": 64,
    },
}
TOLERANCE = 1e-3  # of the spread of scores or map values
TRAINING, TOLD, TEST = 12, 4, 8  # images


@dataclass
class Row:
    """What one detector has shown."""

    name: str
    fit_seconds: float = 0.0
    predict_ms: float = 0.0
    peak_megabytes: float = 0.0
    score_difference: float = 0.0
    map_difference: float = 0.0
    failure: str = ""

    @property
    def is_right(self) -> bool:
        return not self.failure and max(self.score_difference, self.map_difference) <= TOLERANCE

    def __str__(self) -> str:
        if self.failure:
            return f"| {self.name} | {self.failure} | | | | |"
        said = "" if self.is_right else " **above the tolerance**"
        costs = f"{self.fit_seconds:.2f} | {self.predict_ms:.1f} | {self.peak_megabytes:.0f}"
        return f"| {self.name} | {costs} | {self.score_difference:.1e} | {self.map_difference:.1e}{said} |"


def images(own_needs: frozenset[str], split: str, size: int, device: torch.device) -> Images:
    """Return drawn images, with depth and anomalies labelled as such for detectors that need them."""
    depth = "depth" in own_needs
    toy, category = Toy(depth=depth), "casting" if depth else "metal"
    found = [s for s in toy.samples() if s.category == category]
    good = [s for s in found if s.split == "train"][:TRAINING]
    defective = [s for s in found if s.split == "test" and s.is_anomaly]
    normal = [s for s in found if s.split == "test" and not s.is_anomaly]
    if split == "train":
        items = [TrainingImage(s) for s in good]
        if "labels" in own_needs:
            items += [TrainingImage(s, TrainingLabel.ANOMALOUS) for s in defective[:TOLD]]
    else:
        half = TEST // 2
        items = [TrainingImage(s) for s in (*defective[TOLD : TOLD + half], *normal[:half])]
    return Images(toy, items, View(size), device, depth=depth)


def make(name: str, size: int) -> Detector:
    """Make a detector with random weights and a short training."""
    own = card("detectors", name)
    known = {p.name for p in own.parameters}
    torch.manual_seed(0)
    detector: Detector = load("detectors", name)(
        **complete(own, {k: v for k, v in SHORT.items() if k in known} | OWN.get(name, {}))
    )
    detector.view = View(size)
    return detector.eval()


def measure(name: str, size: int, device: torch.device) -> Row:
    """Fit and predict on the device, and compare with the CPU."""
    _reset_peak(device)
    detector = make(name, size).to(device)
    needs = detector.needs
    began = time.perf_counter()
    detector.fit(images(needs, "train", size, device), np.random.default_rng(0))
    _wait(device)
    fit_seconds = time.perf_counter() - began
    detector.eval().to(device)
    score, map_, milliseconds = predict(detector, images(needs, "test", size, device))
    peak = _peak(device)
    on_cpu = copy.deepcopy(detector).to("cpu").eval()
    expected, expected_map, _ = predict(on_cpu, images(needs, "test", size, torch.device("cpu")))
    return Row(name, fit_seconds, milliseconds, peak / 1e6, difference(score, expected), difference(map_, expected_map))


def predict(detector: Detector, test: Images) -> tuple[Tensor, Tensor | None, float]:
    """Return scores, maps and the median milliseconds of single images after two to warm up."""
    found, times = [], []
    with torch.inference_mode():
        for batch in test.batches(1):
            _wait(test.device)
            began = time.perf_counter()
            found.append(detector.predict(batch))
            _wait(test.device)
            times.append(time.perf_counter() - began)
    maps = [f.map.cpu() for f in found if f.map is not None]
    return (
        torch.cat([f.score.cpu() for f in found]),
        torch.cat(maps) if maps else None,
        1e3 * float(np.median(times[2:])),
    )


def difference(found: Tensor | None, expected: Tensor | None) -> float:
    """Return the largest difference as a share of the spread of the expected values; nan values make it infinite."""
    if found is None or expected is None:
        return 0.0
    if not (torch.isfinite(found).all() and torch.isfinite(expected).all()):
        return float("inf")
    spread = float(expected.max() - expected.min())
    return float((found - expected).abs().max()) / max(spread, 1e-12)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    """Return bytes: the device's peak, or on a CPU that of the process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--detectors", default="")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=9)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: this shows that the script works"
    print(f"{device} ({about}), torch {torch.__version__}, {options.size} x {options.size}, tolerance {TOLERANCE:g}\n")
    print(f"| detector | fit, s | ms an image | peak, MB | scores differ by | maps differ by |\n|---|{'---:|' * 5}")
    deadline = time.monotonic() + 60 * options.minutes
    rows = []
    for name in options.detectors.split(",") if options.detectors else names("detectors"):
        if time.monotonic() > deadline:
            row = Row(name, failure=f"not run: {options.minutes:g} minutes are over")
        else:
            try:
                row = measure(name, options.size, device)
            except Missing as error:
                print(f"| {name} | not run: {error} | | | | |", flush=True)
                continue
            except Exception as error:  # one detector's fault is a row of the table
                traceback.print_exc(file=sys.stderr)
                row = Row(name, failure=f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
        rows.append(row)
        print(row, flush=True)
    wrong = [row.name for row in rows if not row.is_right]
    print(f"\n{len(rows) - len(wrong)} of {len(rows)} as on the CPU." + (f" Not: {', '.join(wrong)}." if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
