"""Whether the images of a model in use still resemble its calibration: since when not, and what has moved."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadConfig, number_of
from iadbe.monitoring import history, reference
from iadbe.monitoring.channels import CHANNELS
from iadbe.monitoring.exchangeability import ALARM, ChangeDetector
from iadbe.monitoring.history import History, Hour, hour_of
from iadbe.monitoring.reference import Reference

LIKELY = 0.01  # p-value from which a change is likely
RECENT = 24  # hours whose mean is compared with the calibration's


@dataclass(frozen=True)
class Moved:
    """A channel and how it is now."""

    channel: str
    statistic: float  # Shiryaev-Roberts; an alarm of its own from ``ALARM`` on
    before: float  # mean of the calibration
    now: float  # mean of the last hours


@dataclass(frozen=True)
class Findings:
    """What the hours of a model say."""

    hours: tuple[Hour, ...]
    statistics: tuple[float, ...]  # after each hour, the mean over channels
    channels: tuple[Moved, ...]  # the most moved first

    @property
    def alarm(self) -> str | None:
        """The hour of the first alarm, or None."""
        found = (hour.hour for hour, value in zip(self.hours, self.statistics, strict=True) if value >= ALARM)
        return next(found, None)

    @property
    def p(self) -> float:
        """A p-value that holds at any time: evidence as strong as the strongest is at most so probable by chance."""
        return min(1.0, len(self.hours) / max(self.statistics, default=0.0)) if any(self.statistics) else 1.0

    @property
    def images(self) -> int:
        """How many images were compared."""
        return sum(hour.images for hour in self.hours)

    def card(self, last: int | None = None) -> dict[str, Any]:
        """Return the findings as plain values, with all hours or the last ones."""
        pairs = list(zip(self.hours, self.statistics, strict=True))
        return {
            "alarm": self.alarm,
            "p": self.p,
            "images": self.images,
            "hours": [
                {"hour": h.hour, "images": h.images, "rejected": h.rejected, "evidence": statistic}
                | {"verdicts": dict(h.verdicts), "means": dict(h.means)}
                for h, statistic in (pairs if last is None else pairs[-last:])
            ],
            "channels": [
                {"channel": m.channel, "words": CHANNELS[m.channel], "evidence": m.statistic}
                | {"before": m.before, "now": m.now}
                for m in self.channels
            ],
            "sentence": self.sentence(),
        }

    def sentence(self) -> str:
        """Return the outcome in words."""
        seen = f"{number_of(self.images, 'image')} in {number_of(len(self.hours), 'hour')}"
        if not self.hours:
            return "Nothing can be said yet: no hour with images is over."
        if self.alarm is None and self.p > LIKELY:
            return f"The calibration's promise still stands: {seen}, and no sign of a change (p = {self.p:.2g})."
        if self.alarm is None:
            what = CHANNELS[self.channels[0].channel]
            return f"A change is likely, and not yet certain: look at {what} (p = {self.p:.2g}; {seen})."
        moved = [m for m in self.channels if m.statistic >= ALARM] or list(self.channels[:1])
        what = " and ".join(f"{CHANNELS[m.channel]} ({m.before:.4g} before, {m.now:.4g} now)" for m in moved[:3])
        p = f"p = {self.p:.2g}" if self.p >= 1e-12 else "p < 1e-12"
        return (
            f"The calibration's promise no longer holds, since {self.alarm.replace('T', ' ')} h UTC ({p}; {seen}). "
            f"What has moved: {what}."
        )


def findings(folder: Path, source: str = "", now: datetime | None = None, *, running: bool = False) -> Findings:
    """Compare the hours of a model with its calibration.

    Args:
        folder: of the model
        source: predict, watch or server alone; empty: all together
        now: the time; the hour that it lies in is not over and does not count
        running: count that hour too; looking at it again and again weakens what the p-value says

    Raises :class:`BadConfig` for a model without a calibration to compare with.
    """
    known = reference.read(folder)
    if known is None:
        least = f"`iadbe calibrate` with at least {reference.LEAST} good images"
        raise BadConfig(f"{folder} has no calibration to compare with. Run {least}.")
    present = hour_of(now or datetime.now(UTC))
    hours = [h for h in History(folder / history.FILE).hours(known.key, source) if running or h.hour < present]
    return findings_of(known, hours)


def findings_of(known: Reference, hours: Sequence[Hour]) -> Findings:
    """Compare hours with a reference; the draws depend on these alone, so the answer is always the same."""
    detectors = {name: ChangeDetector(channel.counts) for name, channel in known.channels.items()}
    statistics = []
    for hour in hours:
        for name, detector in detectors.items():
            seed = int.from_bytes(hashlib.sha256(f"{known.key}|{hour.hour}|{name}".encode()).digest()[:8], "big")
            if name in hour.counts:
                detector.update(hour.counts[name], np.random.default_rng(seed))
        statistics.append(float(np.mean([d.statistic for d in detectors.values()])))
    moved = []
    for name, detector in detectors.items():
        last = [(h.means[name], int(h.counts[name].sum())) for h in hours[-RECENT:] if name in h.means]
        count = sum(n for _, n in last)
        now = sum(mean * n for mean, n in last) / count if count else known.channels[name].mean
        moved.append(Moved(name, detector.statistic, known.channels[name].mean, now))
    moved.sort(key=lambda m: -m.statistic)
    return Findings(tuple(hours), tuple(statistics), tuple(moved))
