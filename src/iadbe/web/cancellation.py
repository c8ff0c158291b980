"""Cancels a running request when its client disconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from iadbe.web.problems import RequestRefused

POLL = 0.25  # seconds between two checks of the connection


async def _watch(request: Request) -> AsyncIterator[threading.Event]:
    gone = threading.Event()

    async def poll() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(POLL)
        gone.set()

    task = asyncio.create_task(poll())
    try:
        yield gone
    finally:
        task.cancel()


def stop_if(cancelled: threading.Event | None) -> None:
    """End the work of a request whose client has gone."""
    if cancelled is not None and cancelled.is_set():
        raise RequestRefused(499, "the client has gone.")


Cancelled = Annotated[threading.Event, Depends(_watch)]
