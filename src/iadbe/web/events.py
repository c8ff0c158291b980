"""What happens, as it happens: server-sent events from the database, so a reader goes on where it stopped.

Every event has a number; a browser that has lost the connection, to this server or to one before it, sends the last
one back by itself and misses nothing. Logs are read from the runs' files and have no number.
"""

from __future__ import annotations

import asyncio
import json
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
from iadbe.web.house import Here, House
from iadbe.web.problems import Refused
from iadbe.web.runs import read_log

router = APIRouter(tags=["events"])
LOOK = 0.4  # seconds between two looks
ALIVE = 10.0  # seconds after which a silent stream says that it lives
MANY = 500  # events in one go
LOGGED = 16 * 1024  # bytes of a log's end that a new reader gets
FOLDER = re.compile(r"[A-Za-z0-9_.+-]+")


@router.get("/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}, 204: {}})
async def events(
    house: Here,
    job: Annotated[str, Query(pattern="^([0-9a-f]{12})?$", description="one job; else the states of all")] = "",
    after: Annotated[int, Query(ge=0, le=10**15, description="the last event that is known")] = 0,
    logs: Annotated[bool, Query(description="also what the runs of the job print")] = False,
    last_event_id: Annotated[str, Header(max_length=20, description="sent by browsers; wins over `after`")] = "",
) -> Response:
    """Follow a job until it is over, or the states of all jobs.

    The kinds of events are state, plan, planned, started, progress, loss, memory, finished, notice and log.
    """
    after = int(last_event_id) if last_event_id.isdigit() else after
    if job:
        found = await run_in_threadpool(house.queue.get, job)
        if found.is_over and not await run_in_threadpool(house.queue.events, job, after, 1):
            return Response(status_code=204)  # which tells a browser not to come back
    elif not after:
        after = await run_in_threadpool(house.queue.last_event)
    if house.streams >= house.rules.streams:
        raise Refused(503, "too many readers of events at a time.", **{"Retry-After": "10"})
    stream = _stream(house, job, after, logs)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(house: House, job: str, after: int, logs: bool) -> AsyncIterator[str]:
    house.streams += 1
    try:
        said = time.monotonic()
        reader = _Logs(house.store.root / ".logs") if logs and job else None
        if reader is not None and after:
            known = await run_in_threadpool(house.queue.events, job, 0, 10**6, ("started", "finished"))
            reader.catch_up(e for e in known if e.n <= after)
        yield "retry: 1000\n\n"
        while not house.ending.is_set():
            # asked first: what a job tells with its end is read below
            over = bool(job) and await run_in_threadpool(_is_over, house, job)
            kinds = () if job else ("state",)
            news = await run_in_threadpool(house.queue.events, job, after, MANY, kinds)
            for event in news:
                after = event.n
                if reader is not None:
                    for piece in await run_in_threadpool(reader.heard, event):
                        yield piece
                yield _message(event)
            if reader is not None:
                for piece in await run_in_threadpool(reader.more):
                    yield piece
            if news:
                said = time.monotonic()
                continue
            if over:
                break
            if time.monotonic() - said > ALIVE:
                said = time.monotonic()
                yield ": here\n\n"
            await asyncio.sleep(LOOK)
    finally:
        house.streams -= 1


def _is_over(house: House, job: str) -> bool:
    try:
        return house.queue.get(job).is_over
    except UnknownName:  # somebody has removed it
        return True


class _Logs:
    """Follows the logs of the runs under way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: dict[str, tuple[Path, int]] = {}

    def catch_up(self, events: Iterable[Event]) -> None:
        """Take note of the runs that are under way after what a reader knows already."""
        for event in events:
            if event.kind == "finished":
                self.open.pop(event.run, None)
            else:
                self.heard(event)

    def heard(self, event: Event) -> list[str]:
        """Take note of a run's start; at its end, return what it printed last."""
        if event.kind == "started" and FOLDER.fullmatch(str(event.body.get("folder", ""))):
            self.open[event.run] = (self.folder / f"{event.body['folder']}.log", -LOGGED)
        elif event.kind == "finished":
            rest = self.more()
            self.open.pop(event.run, None)
            return rest
        return []

    def more(self) -> list[str]:
        """Return what has been printed since the last look."""
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
