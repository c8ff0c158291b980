"""Rate limits, a token bucket for each client address, and a lock with fair turns."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
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


class FairLock:
    """A lock that is granted in the order of its requests, so that a long request cannot overtake short ones."""

    def __init__(self) -> None:
        self._waiting: deque[threading.Event] = deque()  # the first one holds the lock
        self._lock = threading.Lock()

    def acquire(self, timeout: float) -> bool:
        """Wait for the lock, and say whether it was granted within ``timeout`` seconds."""
        turn = threading.Event()
        with self._lock:
            self._waiting.append(turn)
            if self._waiting[0] is turn:
                turn.set()
        if turn.wait(timeout):
            return True
        with self._lock:
            if turn.is_set():  # granted in the meantime
                return True
            self._waiting.remove(turn)
            return False

    def release(self) -> None:
        """Pass the lock on to the next one that waits."""
        with self._lock:
            self._waiting.popleft()
            if self._waiting:
                self._waiting[0].set()
