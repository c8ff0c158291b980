"""Counts the images of a model in use by hour, in its folder."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from iadbe.errors import BadData
from iadbe.monitoring import history, reference
from iadbe.monitoring.history import History, hour_of

NOT_COUNTED = "these images do not count for `iadbe drift`: {}"
EVERY = 100  # images, after which they are written
SECONDS = 10.0  # after which they are written, too, when the next one comes


class Monitor:
    """Counts a model's images by hour, and writes them now and then."""

    def __init__(self, folder: Path, source: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Watch a model's folder; without a reference in it nothing is kept. ``source`` is who scores the images."""
        self.source, self._now = source, now
        self.problem = ""  # why images could not be counted
        try:
            self.reference = reference.read(folder)
        except BadData as error:
            self.reference, self.problem = None, NOT_COUNTED.format(error)
        self._history = History(folder / history.FILE)
        self._key = self.reference.key if self.reference else ""
        self._written = time.monotonic()
        self._start("")

    def _start(self, hour: str) -> None:
        channels = self.reference.channels if self.reference else {}
        self._hour = hour
        self._counts = {name: np.zeros(len(c.counts), np.int64) for name, c in channels.items()}
        self._totals = dict.fromkeys(channels, 0.0)
        self._verdicts: Counter[str] = Counter()

    def record(self, values: Mapping[str, float], verdict: str) -> None:
        """Count one image: its channels' values, and its verdict."""
        if self.reference is None:
            return
        if (hour := hour_of(self._now())) != self._hour:
            self.flush()
            self._start(hour)
        for name, channel in self.reference.channels.items():
            if math.isfinite(value := values.get(name, math.nan)):
                self._counts[name][channel.bin(value)] += 1
                self._totals[name] += value
        self._verdicts[verdict or "none"] += 1
        if self._verdicts.total() >= EVERY or time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was counted. In a read-only folder it is lost, and ``problem`` says so."""
        if self._verdicts.total() and self.reference is not None:
            counts = {name: bins.tolist() for name, bins in self._counts.items() if bins.sum()}
            try:
                self._history.add(self._key, self._hour, self.source, counts, self._totals, self._verdicts)
            except BadData as error:
                self.problem = NOT_COUNTED.format(error)
            self._start(self._hour)
            self._written = time.monotonic()
