"""The state of one running server, which all routes share: runs, jobs, data roots, policy, limits and loaded models."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from iadbe.web.data_roots import DataRoots
from iadbe.web.kept import KeptValues
from iadbe.web.limits import RateLimiter
from iadbe.web.planner import Planner
from iadbe.web.policy import Policy
from iadbe.web.problems import RequestRefused
from iadbe.web.run_cache import RunCache
from iadbe.web.sessions import Sessions

MAX_WAITING = 8  # prediction requests under way or waiting; more would occupy every worker thread


@dataclass
class ServerState:
    """State of one server process. Nothing here outlives it: what lasts is in the store and in the database."""

    store: Store
    policy: Policy
    run_cache: RunCache
    queue: Queue
    data_roots: DataRoots
    planner: Planner
    model_cache: Any  # iadbe.web.models.ModelCache, which cannot be imported here
    sessions: Sessions
    device: str = "auto"
    predict_limiter: RateLimiter = field(init=False)
    login_limiter: RateLimiter = field(init=False)
    shutting_down: threading.Event = field(default_factory=threading.Event)  # event streams end when it is set
    open_streams: int = 0
    check_lock: threading.Lock = field(default_factory=threading.Lock)  # one data check at a time
    check_reports: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # by (data root, data digest)
    predict_slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_WAITING))

    kept: KeptValues = field(default_factory=KeptValues)  # tables of comparisons
    read_only: bool = False  # the store cannot be written to, so nothing can be changed

    def __post_init__(self) -> None:
        self.predict_limiter = RateLimiter(self.policy.predict_rate)
        self.login_limiter = RateLimiter(self.policy.failures)


def _server(request: Request) -> ServerState:
    found: ServerState = request.app.state.server
    return found


def _client_address(request: Request) -> str:
    return request.client.host if request.client else ""


def _check_writable(request: Request) -> None:
    if _server(request).read_only:
        raise RequestRefused(403, "the store is read-only, so this server changes nothing.")


WRITES = [Depends(_check_writable)]  # dependencies of a route that changes the store or its jobs
Server = Annotated[ServerState, Depends(_server)]
ClientAddress = Annotated[str, Depends(_client_address)]
