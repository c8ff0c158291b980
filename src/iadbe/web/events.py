"""Server-sent events of jobs, read from the database, so that a client can resume after a lost connection.

Every event has a number. A browser that reconnects, even to a restarted server, sends the last number it has seen and
misses nothing. Log text is read from the runs' log files and has no number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from iadbe.errors import UnknownName
from iadbe.jobs.queue import Event
from iadbe.web.number_ranges import whole_number
from iadbe.web.problems import RequestRefused, is_database_away
from iadbe.web.runs import read_log
from iadbe.web.state import Server, ServerState

router = APIRouter(tags=["events"])
POLL = 0.4  # seconds between two queries
KEEP_ALIVE = 10.0  # seconds of silence after which a comment is sent
BATCH = 500  # events of one query
LOG_TAIL = 16 * 1024  # bytes of a log that a new client gets
log = logging.getLogger("iadbe.web")
FOLDER = re.compile(r"[A-Za-z0-9_.+-]+")


@router.get("/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}, 204: {}})
async def events(
    server: Server,
    job: Annotated[str, Query(pattern="^([0-9a-f]{12})?$", description="one job; empty: the states of all")] = "",
    after: Annotated[int, Query(ge=0, le=10**15, description="number of the last event received")] = 0,
    logs: Annotated[bool, Query(description="also the log output of the job's runs")] = False,
    last_event_id: Annotated[str, Header(max_length=20, description="sent by browsers; wins over `after`")] = "",
) -> Response:
    """Stream a job's events until it ends, or the states of all jobs.

    Events are state, plan, planned, started, progress, loss, memory, finished, notice and log.
    """
    number = whole_number(last_event_id)
    after = after if number is None else number
    if job:
        found = await run_in_threadpool(server.queue.get, job)
        if found.is_over and not await run_in_threadpool(server.queue.events, job, after, 1):
            return Response(status_code=204)  # a browser does not reconnect after 204
    elif not after:
        after = await run_in_threadpool(server.queue.last_event)
    if server.open_streams >= server.policy.streams:
        raise RequestRefused(503, "too many event streams are open.", **{"Retry-After": "10"})
    stream = _stream(server, job, after, logs)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(server: ServerState, job: str, after: int, logs: bool) -> AsyncIterator[str]:
    server.open_streams += 1
    try:
        last_sent = time.monotonic()
        reader = _LogReader(server.store.root / ".logs") if logs and job else None
        if reader is not None and after:
            known = await run_in_threadpool(server.queue.events, job, 0, 10**6, ("started", "finished"))
            reader.catch_up(e for e in known if e.n <= after)
        yield "retry: 1000\n\n"
        while not server.shutting_down.is_set():
            # queried before the events, so that the last events of a job are not missed
            over = bool(job) and await run_in_threadpool(_is_over, server, job)
            kinds = () if job else ("state",)
            new_events = await run_in_threadpool(server.queue.events, job, after, BATCH, kinds)
            for event in new_events:
                after = event.n
                if reader is not None:
                    for piece in await run_in_threadpool(reader.on_event, event):
                        yield piece
                yield _message(event)
            if reader is not None:
                for piece in await run_in_threadpool(reader.read_new):
                    yield piece
            if new_events:
                last_sent = time.monotonic()
                continue
            if over:
                break
            if time.monotonic() - last_sent > KEEP_ALIVE:
                last_sent = time.monotonic()
                yield ": keep-alive\n\n"
            await asyncio.sleep(POLL)
    except Exception as error:
        if not is_database_away(error):
            raise
        log.warning("the database is away: %s", error)  # the stream ends, and browsers go on after the last number
    finally:
        server.open_streams -= 1


def _is_over(server: ServerState, job: str) -> bool:
    try:
        return server.queue.get(job).is_over
    except UnknownName:  # it was removed
        return True


class _LogReader:
    """Reads new log output of running runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: dict[str, tuple[Path, int]] = {}

    def catch_up(self, events: Iterable[Event]) -> None:
        """Open the logs of the runs that are under way after these events."""
        for event in events:
            if event.kind == "finished":
                self.open.pop(event.run, None)
            else:
                self.on_event(event)

    def on_event(self, event: Event) -> list[str]:
        """Open a log when its run starts. When the run ends, return the rest of the log."""
        if event.kind == "started" and FOLDER.fullmatch(str(event.body.get("folder", ""))):
            self.open[event.run] = (self.folder / f"{event.body['folder']}.log", -LOG_TAIL)
        elif event.kind == "finished":
            rest = self.read_new()
            self.open.pop(event.run, None)
            return rest
        return []

    def read_new(self) -> list[str]:
        """Return the log output since the last call, as event messages."""
        found = []
        for run, (file, at) in list(self.open.items()):
            piece = read_log(file, at)
            if piece["end"]:
                self.open[run] = (file, piece["end"])
            if piece["text"]:
                found.append(_framed("log", {"run": run, **piece}))
        return found


def _message(event: Event) -> str:
    return _framed(event.kind, {"job": event.job, "at": event.at, "run": event.run, **event.body}, event.n)


def _framed(kind: str, body: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(body)}\n\n"
