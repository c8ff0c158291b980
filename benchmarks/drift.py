"""Drift: weeks on a simulated line, with a light that dims slowly and without.

Drawn washers are fitted (PaDiM), and calibrated on good ones. A pool of other good ones is scored at each of several
levels of light; a week draws its images from that pool, one in fifty with a defect. Without a change the levels never
change; with one they fall evenly over the week. Printed are false alarms (weeks without a change that had one), the
hour of the alarm, and the hour from which twice as many good parts are rejected as the calibration promises.

Run: python benchmarks/drift.py [--weeks 20] [--images 60] [--dimmed 0.5] [--pool 300] [--size 64]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import iadbe
from iadbe import drawing, registry
from iadbe.files import image_io
from iadbe.monitoring.exchangeability import ALARM
from iadbe.monitoring.findings import findings_of
from iadbe.monitoring.history import Hour
from iadbe.monitoring.reference import Reference, read
from iadbe.running.inference import ImageResult
from iadbe.types import Options

HOURS = 168
OVERKILL = 0.02  # that the calibration promises
DEFECTIVE = 50  # one in so many images
LEVELS = 17


def washers(count: int, start: int, size: int, kind: str = "good") -> list[np.ndarray]:
    """Draw washers, (size, size, 3) uint8."""
    drawn = registry.load("drawings", "washer")()
    return [drawing.render(drawn, f"{kind}-{start + i}", kind, size=size).image for i in range(count)]


def bins_of(known: Reference, results: Sequence[ImageResult]) -> dict[str, np.ndarray]:
    """Return the bin of each result, by channel."""
    return {name: np.array([c.bin(r.channels[name]) for r in results]) for name, c in known.channels.items()}


def week(
    known: Reference, pools: Sequence[Mapping[str, np.ndarray]], defects: Mapping[str, np.ndarray],
    levels: Sequence[int], images: int, rng: np.random.Generator,
) -> list[Hour]:  # fmt: skip
    """Draw the hours of a week; the light of each is a level of the pools."""
    hours = []
    for n, level in enumerate(levels):
        bad = int(rng.binomial(images, 1 / DEFECTIVE))
        good = rng.integers(0, len(next(iter(pools[level].values()))), images - bad)
        worse = rng.integers(0, len(next(iter(defects.values()))), bad)
        counts = {
            name: np.bincount(np.r_[pools[level][name][good], defects[name][worse]], minlength=len(channel.counts))
            for name, channel in known.channels.items()
        }
        hours.append(Hour(f"{n:06d}", counts, {}, {"good": images}))
    return hours


def first_doubled(overkill: Sequence[float], levels: Sequence[float]) -> int:
    """Return the first hour in which the overkill, between two levels in proportion, is twice what was promised."""
    shares = np.interp(levels, np.arange(len(overkill)), overkill)
    reached = np.flatnonzero(shares >= 2 * OVERKILL)
    return int(reached[0]) if len(reached) else HOURS


def main() -> None:
    """Run the weeks and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=20)
    parser.add_argument("--images", type=int, default=60, help="an hour")
    parser.add_argument("--dimmed", type=float, default=0.5, help="light at the end of the week")
    parser.add_argument("--pool", type=int, default=300, help="good parts")
    parser.add_argument("--calibration", type=int, default=200, help="good parts that the model is calibrated on")
    parser.add_argument("--size", type=int, default=64, help="of the images")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for n, pixels in enumerate(washers(80, 0, given.size)):
            image_io.write(root / f"washers/good/{n:03d}.png", pixels)
        (trained,) = iadbe.train(
            "padim", str(root / "washers"), protocol=f"uniform@{given.size}", store=root / "runs",
            options=Options(features="off", images=0),
        )  # fmt: skip
        for n, pixels in enumerate(washers(given.calibration, 1000, given.size)):
            image_io.write(root / f"calibration/{n:03d}.png", pixels)
        iadbe.calibrate(trained, root / "calibration", overkill=OVERKILL)
        known, model = read(trained.folder / "model"), iadbe.load(trained)
        assert known is not None
        good, bad = washers(given.pool, 2000, given.size), washers(100, 5000, given.size, "dent")
        lights = np.linspace(1, given.dimmed, LEVELS)
        scored = [list(iadbe.predict(model, [dimmed(pixels, light) for pixels in good])) for light in lights]
        defects = bins_of(known, list(iadbe.predict(model, bad)))
    overkill = [float(np.mean([r.defective for r in found])) for found in scored]
    pools = [bins_of(known, found) for found in scored]
    print("light    " + " ".join(f"{light:5.2f}" for light in lights[::2]))
    print("overkill " + " ".join(f"{share:5.3f}" for share in overkill[::2]))
    false, steady = 0, 0
    for _ in range(given.weeks):
        hours = week(known, pools, defects, [0] * HOURS, given.images, rng)
        false += findings_of(known, hours).alarm is not None
        steady += HOURS
    print(
        f"without a change: {false} alarms in {given.weeks} weeks ({steady} hours; 1 in {ALARM:.0f} hours is allowed)"
    )
    position = np.linspace(0, LEVELS - 1, HOURS)
    doubled = first_doubled(overkill, position.tolist())
    early, alarms = 0, []
    for _ in range(given.weeks):
        levels = [int(p) + int(rng.random() < p % 1) for p in position]
        found = findings_of(known, week(known, pools, defects, levels, given.images, rng))
        hour = HOURS if found.alarm is None else int(found.alarm)
        alarms.append(hour)
        early += hour < doubled
    share = np.interp(np.median(alarms), np.arange(HOURS), np.interp(position, np.arange(LEVELS), overkill))
    print(f"dimming to {given.dimmed:g}: overkill has doubled in hour {doubled} of {HOURS}")
    print(f"alarm in hour {min(alarms)} to {max(alarms)}, median {np.median(alarms):.0f} (overkill {share:.3f} then)")
    print(f"before the overkill had doubled in {early} of {given.weeks} weeks")


def dimmed(pixels: np.ndarray, light: float) -> np.ndarray:
    """Return an image in less light."""
    return np.clip(np.rint(pixels.astype(np.float32) * light), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
