"""Rate limits: a token bucket for each client address."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000  # clients that are remembered; the least recently seen is forgotten first


class RateLimiter:
    """A token bucket for each client. It holds ``each_minute`` tokens and refills evenly within a minute."""

    def __init__(self, each_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = each_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> (tokens, time of the count)

    def take(self, client: str, count: float = 1) -> int:
        """Take ``count`` tokens and return 0; or take none and return the seconds after which to try again.

        A count above the size of the bucket is granted when the bucket is full. The debt is paid off afterwards.
        """
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.pop(client, (self.size, now))
            tokens = min(self.size, tokens + (now - then) * self.size / 60)
            lacking = min(count, self.size) - tokens
            self._buckets[client] = (tokens if lacking > 1e-9 else tokens - count, now)
            while len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
            return math.ceil(lacking / self.size * 60) if lacking > 1e-9 else 0

    def is_exhausted(self, client: str) -> bool:
        """Say whether less than one token is left. Takes none."""
        with self._lock:
            tokens, then = self._buckets.get(client, (self.size, 0.0))
            return tokens + (self._clock() - then) * self.size / 60 < 1
