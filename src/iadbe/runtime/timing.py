"""Cold start, latency, throughput and memory of an exported file, measured in a process of its own.

The cold start is the time from starting a Python process to its first score: interpreter, imports, loading the file,
one image. Its CPU time counts all threads. Latency is the time for one image from pixels in memory to all outputs,
decoding excluded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iadbe import system
from iadbe.errors import RunFailed
from iadbe.runtime.inspector import Inspector

RUNS = 200  # timed images at batch 1
WARM_UP = 3
SECONDS = 30.0  # after which no further image is timed
LEAST = 20  # images that are timed in any case
BATCHES = (1, 2, 4, 8, 16)
BATCH_SECONDS = 2.0  # for each batch size
PIXELS = 2**25  # of a batch, at most


@dataclass(frozen=True, slots=True)
class Timing:
    """What one machine needs for a file."""

    engine: str
    threads: int  # of the engine; 0: as many as it takes by itself
    height: int  # of the timed image
    width: int
    cold_start_s: float
    cold_start_cpu_s: float
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    peak_bytes: int  # resident memory of the process at batch 1
    batch: int  # images at a time with the highest throughput
    images_per_s: float


def measure(file: Path, image: np.ndarray, engine: str = "auto", threads: int = 0, runs: int = RUNS) -> Timing:
    """Time a file on one image (H, W, 3) uint8. Raises :class:`RunFailed` if its process ends without a result."""
    with tempfile.TemporaryDirectory(prefix="iadbe-", ignore_cleanup_errors=True) as folder:
        pixels = Path(folder) / "image.npy"
        np.save(pixels, image, allow_pickle=False)
        asked = {"file": str(file.absolute()), "image": str(pixels), "engine": engine, "threads": threads, "runs": runs}
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "iadbe.runtime.timing", json.dumps(asked)]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=environment) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            cold = time.perf_counter() - began
            rest = process.stdout.read()
    if process.returncode or not rest:
        raise RunFailed(f"timing {file.name} {system.crash_text(process.returncode)}.")
    return Timing(cold_start_s=cold, cold_start_cpu_s=float(first), **json.loads(rest))


def _timed(asked: dict[str, Any]) -> None:
    """Time a file in this process: print the CPU time at the first score, then all the rest."""
    image = np.load(asked["image"], allow_pickle=False)
    inspector = Inspector(asked["file"], asked["engine"], asked["threads"])
    inspector(image)
    print(time.process_time(), flush=True)
    for _ in range(WARM_UP):
        inspector(image)
    ms: list[float] = []
    began = time.perf_counter()
    while len(ms) < asked["runs"] and (len(ms) < LEAST or time.perf_counter() - began < SECONDS):
        start = time.perf_counter()
        inspector(image)
        ms.append(1000 * (time.perf_counter() - start))
    peak = system.peak_memory()
    p50, p95, p99 = (float(np.percentile(ms, share, method="higher")) for share in (50, 95, 99))
    batch, rate = _best_batch(inspector, image)
    found = {"engine": inspector.engine, "threads": asked["threads"], "height": image.shape[0], "width": image.shape[1]}
    found |= {"runs": len(ms), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "peak_bytes": peak}
    print(json.dumps(found | {"batch": batch, "images_per_s": rate}))


def _best_batch(inspector: Inspector, image: np.ndarray) -> tuple[int, float]:
    """Return the number of images at a time with the highest throughput, and images per second."""
    best = (1, 0.0)
    for batch in BATCHES:
        if batch > 1 and batch * image.shape[0] * image.shape[1] > PIXELS:
            break
        images = np.repeat(image[None], batch, axis=0)
        inspector.batch(images)
        began, count = time.perf_counter(), 0
        while count < 2 or time.perf_counter() - began < BATCH_SECONDS:
            inspector.batch(images)
            count += 1
        best = max(best, (batch, batch * count / (time.perf_counter() - began)), key=lambda found: found[1])
    return best


if __name__ == "__main__":
    _timed(json.loads(sys.argv[1]))
