"""Values made from a comparison (tables above all), kept in memory until newer ones need their room.

A comparison never changes, so a value is right as long as its comparison is the one that is asked about. When a run
changes, :class:`iadbe.web.run_cache.RunCache` makes another comparison, for which nothing is kept yet.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from iadbe.results.comparison import Comparison

MAX_KEPT = 128  # values; the least recently used go first

T = TypeVar("T")


class KeptValues:
    """The most recently used values. Thread-safe; two threads may make the same value at the same time."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[int, Hashable], tuple[Comparison, Any]] = OrderedDict()

    def get(self, of: Comparison, asked: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned for this comparison and question before, else call it.

        ``asked`` is all that ``make`` depends on besides the comparison.
        """
        key = (id(of), asked)  # the comparison is held beside its value, so no other one can have its id
        with self._lock:
            if (kept := self._found.get(key)) is not None:
                self._found.move_to_end(key)
                value: T = kept[1]
                return value
        value = make()
        with self._lock:
            self._found[key] = (of, value)
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return value
