"""What a file of lower precision costs against the same file in float32, by the same runtime on the same images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iadbe.errors import BadConfig
from iadbe.evaluation.confidence import CategoryScores, Interval, auroc, bootstrap_all, percentile_interval
from iadbe.evaluation.intervals import auroc_interval
from iadbe.runtime.file_parts import parts_of
from iadbe.runtime.inspector import Inspection, Inspector

TOLERANCE = 0.01  # of the correlation's distance from 1, of the share of other verdicts, of what the AUROC loses
TIMED = 10  # images that are timed, one at a time, on one thread
LEVEL = 0.95


class TooCostly(BadConfig):
    """A file whose precision costs more than is tolerated, and was not kept."""


@dataclass(frozen=True, slots=True)
class PrecisionCost:
    """Scores, size and time of a file beside those of the file in float32."""

    engine: str
    images: int
    correlation: float  # of the scores (Pearson)
    apart: float  # the largest difference of two scores, relative to the largest score
    verdicts: int  # images with another verdict
    bytes: tuple[int, int]  # of both files: float32, this one
    cpu_ms: tuple[float, float]  # medians of one image at one thread, all operations
    auroc: tuple[float, float] | None = None  # on the test images; None without any
    intervals: tuple[Interval, Interval] | None = None  # of both, at 95 %
    difference: Interval | None = None  # of the AUROC that is lost, paired bootstrap, at 95 %

    def within(self, tolerance: float) -> bool:
        """Whether the correlation's distance from 1, the share of other verdicts and the AUROC's loss are within it."""
        lost = 0.0 if self.auroc is None else self.auroc[0] - self.auroc[1]
        return max(self.verdicts / self.images, lost) <= tolerance and 1 - self.correlation <= tolerance  # no nan

    def lines(self) -> list[str]:
        """Return the cost as sentences."""
        (large, small), (slow, fast) = self.bytes, self.cpu_ms
        found = [
            f"against fp32 in {self.engine}, {self.images} images: correlation of scores {self.correlation:.5f}, "
            f"differences up to {self.apart:.1%} of the largest, {self.verdicts} other verdicts",
            f"size {small / 1e6:.1f} MB, fp32 {large / 1e6:.1f} MB ({small / large:.2f} times); CPU time of one image "
            f"{fast:.1f} ms, fp32 {slow:.1f} ms ({fast / slow:.2f} times)",
        ]
        if self.auroc is None or self.intervals is None or self.difference is None:
            return [*found, "AUROC: not known. Give test images with --good and --bad."]
        (before, after), (first, second), lost = self.auroc, self.intervals, self.difference
        verdict = "differ" if lost.low > 0 or lost.high < 0 else "do not differ significantly"
        return [
            *found,
            f"AUROC {after:.4f} [{second.low:.4f}, {second.high:.4f}], fp32 {before:.4f} [{first.low:.4f}, "
            f"{first.high:.4f}]; both {verdict} (95 % of the difference in a paired bootstrap: {lost.low:+.4f} to "
            f"{lost.high:+.4f})",
        ]


def measure(
    whole: Path, lower: Path, engine: str, images: Sequence[np.ndarray], truth: Sequence[bool] = ()
) -> PrecisionCost:
    """Compare a file of lower precision with one in float32.

    Args:
        whole: the file in float32
        lower: the other one
        engine: that runs both
        images: (H, W, 3) uint8, of any sizes, at least two
        truth: which of them are defective; empty: that is not known
    """
    both = [Inspector(file, engine, threads=1) for file in (whole, lower)]
    for inspector in both:
        inspector(images[0])  # the first image allocates memory
    found: list[list[Inspection]] = [[], []]
    times: list[list[float]] = [[], []]
    for image in images:
        for number, inspector in enumerate(both):  # in turn, so that a busy machine slows both
            began = time.process_time()
            found[number].append(replace(inspector(image), anomaly_map=None))
            times[number].append(time.process_time() - began)
    first, second = (np.array([one.score for one in own]) for own in found)
    sizes = [sum(part.stat().st_size for part in parts_of(file)) for file in (whole, lower)]
    ms = [1000 * float(np.median(one[:TIMED])) for one in times]
    apart = float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-12))
    others = sum(one.verdict != other.verdict for one, other in zip(*found, strict=True))
    cost = PrecisionCost(
        engine, len(images), _correlation(first, second), apart, others, (sizes[0], sizes[1]), (ms[0], ms[1])
    )
    return cost if not len(truth) else _with_auroc(cost, first, second, np.asarray(truth, bool))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2 or not (first.std() and second.std()):
        return 1.0 if np.array_equal(first, second) else float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _with_auroc(found: PrecisionCost, first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> PrecisionCost:
    ids = tuple(f"{number:06}" for number in range(len(truth)))
    cases = [CategoryScores(ids, truth, scores[None]) for scores in (first, second)]
    values = [auroc(case) for case in cases]
    intervals = [auroc_interval([case]) for case in cases]
    if intervals[0] is None or intervals[1] is None:
        raise BadConfig("an AUROC takes good and defective test images: give both --good and --bad.")
    before, after = bootstrap_all([[case] for case in cases])
    return replace(
        found, auroc=(values[0], values[1]), intervals=(intervals[0], intervals[1]),
        difference=percentile_interval(before - after, LEVEL),
    )  # fmt: skip
