"""How often somebody may do something: so many in a row, and so many a minute after that."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

KNOWN = 10_000  # clients that are remembered


class Rate:
    """A bucket for each client: it holds ``each_minute`` and fills evenly."""

    def __init__(self, each_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = each_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is in the bucket, and when it was

    def wait(self, client: str, count: float = 1) -> int:
        """Take ``count`` out and return 0; or take nothing and return after how many seconds to ask again.

        More than fits into the bucket is let through when it is full, and paid for afterwards.
        """
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(client, (self.size, now))
            left = min(self.size, left + (now - then) * self.size / 60)
            lacking = min(count, self.size) - left
            self._left[client] = (left if lacking > 1e-9 else left - count, now)
            while len(self._left) > KNOWN:
                self._left.popitem(last=False)
            return math.ceil(lacking / self.size * 60) if lacking > 1e-9 else 0

    def is_spent(self, client: str) -> bool:
        """Say whether nothing is left, taking nothing."""
        with self._lock:
            left, then = self._left.get(client, (self.size, 0.0))
            return left + (self._clock() - then) * self.size / 60 < 1
