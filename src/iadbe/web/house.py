"""What the parts of one server share: the store's runs, the jobs, the data that may be used, the rules."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from iadbe.web.library import Library
from iadbe.web.limits import Rate
from iadbe.web.places import Places
from iadbe.web.rules import Rules

WAITING = 8  # requests to predict that are under way or wait: others would take all threads


@dataclass
class House:
    """One server's state, none of which outlives it: what lasts is in the store and in the database."""

    store: Store
    rules: Rules
    library: Library
    queue: Queue
    places: Places
    device: str = "auto"
    predictions: Rate = field(init=False)
    logins: Rate = field(init=False)
    ending: threading.Event = field(default_factory=threading.Event)  # streams of events end then
    streams: int = 0
    looking: threading.Lock = field(default_factory=threading.Lock)  # at every image of some data: one at a time
    looked: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # what was found, by data and digest
    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WAITING))
    fitted: Any = None  # the loaded models, once there are any

    def __post_init__(self) -> None:
        self.predictions = Rate(self.rules.predict_rate)
        self.logins = Rate(self.rules.failures)


def _house(request: Request) -> House:
    found: House = request.app.state.house
    return found


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


Here = Annotated[House, Depends(_house)]
Client = Annotated[str, Depends(_client)]
