"""Whether an exported file does on this machine what torch did where it was made, and how fast: `iadbe verify`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iadbe import __version__, system
from iadbe.errors import BadConfig, BadData
from iadbe.files.byte_sizes import format_bytes
from iadbe.runtime import references
from iadbe.runtime.deviation import Deviation, deviation
from iadbe.runtime.inspector import Inspection, Inspector
from iadbe.runtime.references import References
from iadbe.runtime.timing import RUNS, Timing, measure

PACKAGES = ("onnxruntime", "openvino", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a file must fulfil."""

    name: str
    found: str
    limit: str
    holds: bool


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """What `iadbe verify` found."""

    file: Path
    digest: str  # SHA-256
    card: Mapping[str, Any] = field(repr=False)
    references: References = field(repr=False)
    found: tuple[Inspection, ...] = field(repr=False)  # of the reference images, by the file
    deviation: Deviation
    timing: Timing
    cycle_time: float | None = None  # seconds, that the 99 % quantile of the latency must not exceed

    @property
    def passed(self) -> bool:
        """Whether scores, maps and verdicts agree with torch, and the cycle time is kept."""
        return all(check.holds for check in self.checks())

    def checks(self) -> list[Check]:
        """Return what the file must fulfil, one entry each."""
        off, limit = self.deviation, f"{self.deviation.tolerance:.0e}"
        checks = [Check("deviation of scores", f"{off.score:.1e}", limit, off.score <= off.tolerance)]
        if any(one.anomaly_map is not None for one in self.references.expected):
            checks.append(Check("deviation of maps", f"{off.map:.1e}", limit, off.map <= off.tolerance))
        checks.append(Check("other verdicts", f"{off.verdicts} of {off.images}", "0", off.verdicts == 0))
        if self.cycle_time is not None:
            most, p99 = 1000 * self.cycle_time, self.timing.p99_ms
            checks.append(Check("cycle time, p99", f"{p99:.1f} ms", f"{most:g} ms", p99 <= most))
        return checks

    def figures(self) -> list[tuple[str, str]]:
        """Return what was measured, as names and texts."""
        it = self.timing
        cold = f"{it.cold_start_s:.2f} s, {it.cold_start_cpu_s:.2f} s of CPU: from starting Python to the first score"
        latency = f"p50 {it.p50_ms:.1f} ms, p95 {it.p95_ms:.1f} ms, p99 {it.p99_ms:.1f} ms over {it.runs} images"
        return [
            ("image", f"{it.width} x {it.height} pixels"),
            ("threads", str(it.threads) if it.threads else f"chosen by {it.engine}"),
            ("cold start", cold),
            ("latency, batch 1", latency),
            ("throughput", f"{it.images_per_s:.1f} images/s at batch {it.batch}"),
            ("memory", f"{format_bytes(it.peak_bytes)} at its peak, batch 1"),
        ]

    def machine(self) -> dict[str, str]:
        """Return machine and versions."""
        found = {
            "processor": f"{system.processor()}, {os.cpu_count()} cores",
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "iadbe": __version__,
        }
        for name in PACKAGES:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found | {"date": datetime.now(UTC).isoformat(timespec="seconds")}


def verify(
    file: str | Path,
    *,
    engine: str = "auto",
    threads: int = 0,
    cycle_time: float | None = None,
    runs: int = RUNS,
    kept: str | Path | None = None,
) -> Verification:
    """Compare an exported file with torch on the reference images beside it, and time it; torch is not needed.

    Args:
        file: an exported file
        engine: onnxruntime, openvino, or auto
        threads: of the engine; 0: as many as it takes by itself
        cycle_time: seconds that the 99 % quantile of the latency at batch 1 must not exceed; None: any
        runs: images that are timed, at least 20
        kept: the archive of reference images; None: that beside the file

    Raises:
        BadConfig: if there is no file, no archive, or a wrong number is given
        BadData: for damaged files, and reference images that belong to another file
    """
    if runs < 1 or threads < 0 or (cycle_time is not None and not 0 < cycle_time < float("inf")):
        raise BadConfig("runs are 1 or more, threads 0 or more, a cycle time is above 0.")
    file = system.user_path(file)
    inspector = Inspector(file, engine, threads)
    archive = references.beside(file) if kept is None else system.user_path(kept)
    given, belongs = references.read(archive)
    own = references.digest(file)
    if own != belongs:
        raise BadData(f"{archive.name} belongs to another file than {file.name}, or it has changed. Export it again.")
    found = tuple(inspector(image) for image in given.images)
    timing = measure(file, _at_native_size(given), inspector.engine, threads, runs)
    off = deviation(given, found, inspector.engine)
    return Verification(file, own, inspector.card, given, found, off, timing, cycle_time)


def _at_native_size(given: References) -> np.ndarray:
    """Return the first reference image at the size that it had before it was made smaller."""
    image = given.images[0]
    if image.shape[:2] == given.native:
        return image
    height, width = given.native
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
