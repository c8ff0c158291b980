"""Limits of connections: time-outs for headers, bodies and responses, and a maximum below the descriptor limit.

A client that sends its headers byte by byte, or opens connections and waits, cannot keep others out: the connection
that has waited longest makes room for a new one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from iadbe import system

MOST = 2000  # connections, where the descriptor limit allows them
DESCRIPTORS = 65_536  # wanted, where the hard limit allows them
WITHOUT_LIMIT = 400  # connections on systems that do not tell their descriptor limit
QUIET = 60.0  # seconds for which the same log message is not repeated
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
log = logging.getLogger("iadbe.web")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one server."""

    most: int = WITHOUT_LIMIT  # connections at a time
    header_seconds: float = 10.0  # until the headers of a request have arrived
    body_seconds: float = 20.0  # in which ``body_bytes`` of a body must arrive
    body_bytes: int = 20_000
    response_seconds: float = 60.0  # in which a client must read some of the response


def connection_limit() -> int:
    """Return how many connections this process can hold. Raises its soft descriptor limit where that is allowed."""
    limit = system.descriptor_limit(DESCRIPTORS)
    return WITHOUT_LIMIT if limit is None else int(max(16, min(MOST, limit // 2)))


def protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """Return a protocol for uvicorn with these limits."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits})


class _LimitedProtocol(H11Protocol):
    limits = ConnectionLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._received = self._buffered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._phase = ""
        if len(self.connections) > self.limits.most:
            log.warning("the limit of %d connections is reached; waiting ones are closed", self.limits.most)
            others = [c for c in self.connections if isinstance(c, _LimitedProtocol) and c is not self]
            waiting = [c for c in others if c.is_waiting]
            if not waiting:
                transport.write(FULL)
                transport.close()
                return
            min(waiting, key=lambda c: c._since).transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()
        self._stop()  # uvicorn's own timer closes idle connections

    @property
    def is_waiting(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _watch(self) -> None:
        """Start the timer of the present phase, unless it runs."""
        phase = "headers" if self.is_waiting else "body" if self.cycle.more_body else "response"
        if phase != self._phase and not self.transport.is_closing():
            self._stop()
            self._phase = phase
            self._start()

    def _start(self) -> None:
        self._received, self._buffered = 0, self.transport.get_write_buffer_size()
        seconds: float = getattr(
            self.limits, f"{self._phase[:-1] if self._phase == 'headers' else self._phase}_seconds"
        )
        self._timer = self.loop.call_later(seconds, self._check)

    def _stop(self) -> None:
        self._phase = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        """Close the connection where its client made no progress, else go on watching."""
        self._timer = None
        if self._is_stalled():
            self.transport.abort()
        elif not self.is_waiting:
            self._phase = "body" if self.cycle.more_body else "response"
            self._start()

    def _is_stalled(self) -> bool:
        if self.is_waiting:
            return self._phase == "headers"
        if self._phase == "body" and self.cycle.more_body:
            return self._received < self.limits.body_bytes and not self.flow.read_paused
        buffered = self.transport.get_write_buffer_size()
        return self._phase == "response" and 0 < self._buffered == buffered


class RepeatFilter(logging.Filter):
    """Drops a log message that was logged a short time ago, so that nobody can fill the disk with it."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[Any, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the message is new."""
        now, key = time.monotonic(), (record.name, record.levelno, str(record.msg)[:200])
        if now - self._logged.get(key, -QUIET) < QUIET:
            return False
        if len(self._logged) > 1000:
            self._logged.clear()
        self._logged[key] = now
        return True


def quieten() -> None:
    """Install the filter on the loggers that a client can make write."""
    repeated = RepeatFilter()
    for name in ("uvicorn.error", "asyncio", "iadbe.web"):
        logging.getLogger(name).addFilter(repeated)
