"""Sends verdicts to a sink from a thread: in order, again after a failure, until it has taken them."""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from iadbe.watching.journal import Journal

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds before a verdict is sent again
POLL_SECONDS = 0.2


class Sink(ABC):
    """Something that takes verdicts. A verdict may arrive more than once; its ``id`` says that it is the same."""

    name: ClassVar[str]

    @abstractmethod
    def send(self, line: str) -> None:
        """Send one verdict, a JSON line. Raises any exception where it was not taken."""

    def close(self) -> None:  # noqa: B027
        """End the connection."""


class Delivery(threading.Thread):
    """The thread of a sink. ``problem`` says why the last attempt failed; empty where it did not."""

    def __init__(self, sink: Sink, journal: Journal) -> None:
        super().__init__(name=f"sink {sink.name}", daemon=True)
        self.problem = ""
        self._sink = sink
        self._journal = journal
        self._is_over = threading.Event()

    def run(self) -> None:
        """Send what is due until the end."""
        while not self._is_over.is_set():
            try:
                sent = self._send_due()
            except sqlite3.Error as error:  # the disk of the journal is full, or away: it is sent again
                self.problem, sent = f"the journal: {error}", False
            if not sent:
                self._is_over.wait(POLL_SECONDS)

    def stop(self, seconds: float) -> None:
        """End, at the latest after these seconds; what was not sent stays in the journal."""
        deadline = time.monotonic() + seconds
        while self._journal.pending(self._sink.name) and not self.problem and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._is_over.set()
        self.join(max(deadline - time.monotonic(), POLL_SECONDS))
        self._sink.close()

    def _send_due(self) -> bool:
        """Send what is due; return whether there was anything and the sink took it."""
        due = self._journal.due(self._sink.name, time.time())
        for one in due:
            if self._is_over.is_set():
                return False
            try:
                self._sink.send(one.line)
            except Exception as error:  # each library has errors of its own
                self.problem = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                self._journal.postpone(one, time.time() + min(FIRST_PAUSE * 2**one.attempts, LONGEST_PAUSE))
                return False
            self.problem = ""
            self._journal.delivered(one)
        return bool(due)
