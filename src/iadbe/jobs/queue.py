"""The job queue of a store: each job is taken by one worker at a time and kept until it is removed.

    queued ─► running ─► done | failed | stopped
       ▲         │
       └─────────┘  its worker has died (no heartbeat for STALE_SECONDS) or was stopped

A job is a grid. Its finished runs are in the store, so the next worker that takes it does only what is missing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from iadbe.errors import BadConfig, UnknownName
from iadbe.jobs import tables
from iadbe.results import database
from iadbe.running.store import Store

if TYPE_CHECKING:
    from sqlalchemy import Connection

STATES = ("queued", "running", "done", "failed", "stopped")
ENDED = ("done", "failed", "stopped")
STALE_SECONDS = 20.0  # without a heartbeat, after which a worker counts as dead
MAX_ATTEMPTS = 3  # of workers that may die with one job
COUNTS = ("total", "already", "done", "failed")
MAX_WAITING = 1000  # jobs in the queue
PARSED = {"requested": "asked", "grid": "grid", "how": "how"}  # field of a job -> its column of JSON


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the queue."""

    id: str
    state: str
    title: str
    requested: Mapping[str, Any]
    grid: Mapping[str, Any]
    how: Mapping[str, Any]
    created: float
    started: float | None = None
    ended: float | None = None
    worker: str = ""
    attempt: int = 0
    beat: float | None = None
    stopping: bool = False
    total: int = 0
    already: int = 0
    done: int = 0
    failed: int = 0
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """One event of a job, before it is stored."""

    kind: str  # "state", "planned", "started", "progress", "loss", "memory", "finished", "notice"
    body: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    latest: str = ""  # not empty: an older one of this name and run is dropped


class Event(NamedTuple):
    """One event of a job, as it is stored."""

    n: int
    job: str
    at: float
    kind: str
    run: str
    body: dict[str, Any]


class Queue:
    """The jobs of one store. Safe to use from many threads and processes. Use it in a ``with`` block, or close it."""

    def __init__(self, store: Store, url: str = "", stale: float = STALE_SECONDS) -> None:
        """Open the queue, or make it; ``url`` is a database's URL, by default SQLite in the store's folder."""
        self.stale = stale
        self._engine = tables.opened(store, url)
        self._jobs, self._events = (tables.schema().tables[name] for name in ("jobs", "job_events"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def add(
        self, grid: Mapping[str, Any], how: Mapping[str, Any] | None = None, *, requested: Any = None, title: str = ""
    ) -> Job:
        """Put a job at the end of the queue."""
        from sqlalchemy import func, select

        jobs = self._jobs
        name = secrets.token_hex(6)
        with database.writing(self._engine) as connection:
            waiting = connection.execute(select(func.count()).where(jobs.c.state == "queued")).scalar_one()
            if waiting >= MAX_WAITING:
                raise BadConfig(f"{waiting} jobs are waiting already. Stop some, or start a worker: iadbe worker.")
            row = {"id": name, "state": "queued", "title": title, "created": tables.clock(connection)}
            row |= {"grid": json.dumps(dict(grid)), "how": json.dumps(dict(how or {}))}
            connection.execute(jobs.insert().values(**row, asked=json.dumps(grid if requested is None else requested)))
            self._write(connection, name, [JobUpdate("state", {"state": "queued"})])
        return self.get(name)

    def get(self, name: str) -> Job:
        """Return a job. Raises :class:`UnknownName` where there is none."""
        from sqlalchemy import select

        with self._engine.connect() as connection:
            row = connection.execute(select(self._jobs).where(self._jobs.c.id == name)).mappings().first()
        if row is None:
            raise UnknownName(f"there is no job {name!r}.")
        return _job(dict(row))

    def list_jobs(self, states: Iterable[str] = (), limit: int = 100, offset: int = 0) -> tuple[list[Job], int]:
        """Return jobs, the newest first, and how many there are in all."""
        from sqlalchemy import func, select

        jobs = self._jobs
        wanted = [jobs.c.state.in_(list(states))] if states else []
        order = (jobs.c.created.desc(), jobs.c.id)
        with self._engine.connect() as connection:
            total = connection.execute(select(func.count()).select_from(jobs).where(*wanted)).scalar_one()
            rows = connection.execute(select(jobs).where(*wanted).order_by(*order).limit(limit).offset(offset))
            return [_job(dict(row)) for row in rows.mappings()], total

    def take(self, worker: str) -> Job | None:
        """Give the oldest job that waits, or whose worker has died, to ``worker``; None where there is none."""
        from sqlalchemy import and_, or_, select

        jobs = self._jobs
        if self._nothing_waits():
            return None
        with database.writing(self._engine) as connection:
            now = tables.clock(connection)
            left = and_(jobs.c.state == "running", or_(jobs.c.beat.is_(None), jobs.c.beat < now - self.stale))
            query = select(jobs).where(or_(jobs.c.state == "queued", left)).order_by(jobs.c.created, jobs.c.id)
            for row in connection.execute(query).mappings().all():
                job = _job(dict(row))
                if job.stopping:
                    self._end(connection, job.id, "stopped", "", now)
                elif job.state == "running" and job.attempt >= MAX_ATTEMPTS:
                    self._end(connection, job.id, "failed", f"its worker has died {job.attempt} times.", now)
                else:
                    new = {"state": "running", "worker": worker, "beat": now, "attempt": job.attempt + 1}
                    new |= {"started": job.started or now, "done": 0, "failed": 0}
                    connection.execute(jobs.update().where(jobs.c.id == job.id).values(**new))
                    body = {"state": "running", "worker": worker, "attempt": job.attempt + 1}
                    self._write(connection, job.id, [JobUpdate("state", body)])
                    return _job({**row, **new})
        return None

    def beat(self, job: Job, updates: Iterable[JobUpdate] = (), counts: Mapping[str, int] | None = None) -> str:
        """Record a heartbeat of a job's worker, with updates.

        Returns what the worker shall do: ``""`` (continue), ``"stop"``, or ``"lost"`` where another worker has the job.
        """
        from sqlalchemy import select

        jobs = self._jobs
        with database.writing(self._engine) as connection:
            own = (jobs.c.id == job.id, jobs.c.attempt == job.attempt, jobs.c.state == "running")
            new = {"beat": tables.clock(connection), **{k: v for k, v in (counts or {}).items() if k in COUNTS}}
            if not connection.execute(jobs.update().where(*own).values(**new)).rowcount:
                return "lost"
            self._write(connection, job.id, updates)
            return "stop" if connection.execute(select(jobs.c.stopping).where(jobs.c.id == job.id)).scalar() else ""

    def end(self, job: Job, state: str, error: str = "") -> None:
        """Record how a taken job has ended; a job that another worker has taken since is left alone."""
        with database.writing(self._engine) as connection:
            self._end(connection, job.id, state, error, tables.clock(connection), job.attempt)

    def release(self, job: Job) -> None:
        """Return a job to the queue: its worker has to stop."""
        jobs = self._jobs
        with database.writing(self._engine) as connection:
            own = (jobs.c.id == job.id, jobs.c.attempt == job.attempt, jobs.c.state == "running")
            new = {"state": "queued", "worker": "", "beat": None, "attempt": job.attempt - 1}
            if connection.execute(jobs.update().where(*own).values(**new)).rowcount:
                self._write(connection, job.id, [JobUpdate("state", {"state": "queued"})])

    def stop(self, name: str) -> Job:
        """Stop a job: a waiting one at once, a running one at its worker's next heartbeat."""
        job, jobs = self.get(name), self._jobs
        with database.writing(self._engine) as connection:
            now = tables.clock(connection)
            new = {"state": "stopped", "ended": now, "stopping": 1}
            waits = jobs.update().where(jobs.c.id == name, jobs.c.state == "queued")
            if connection.execute(waits.values(**new)).rowcount:
                self._write(connection, name, [JobUpdate("state", {"state": "stopped"})])
            elif not job.is_over and not job.stopping:
                connection.execute(jobs.update().where(jobs.c.id == name).values(stopping=1))
                self._write(connection, name, [JobUpdate("state", {"state": "running", "stopping": True})])
        return self.get(name)

    def remove(self, name: str) -> None:
        """Remove a job that has ended; its runs stay in the store."""
        if not self.get(name).is_over:
            raise BadConfig(f"the job {name} is not over. Stop it first.")
        with database.writing(self._engine) as connection:
            connection.execute(self._events.delete().where(self._events.c.job == name))
            connection.execute(self._jobs.delete().where(self._jobs.c.id == name))

    def events(self, name: str = "", after: int = 0, limit: int = 1000, kinds: Iterable[str] = ()) -> list[Event]:
        """Return the events of a job, or of all jobs, after the event number ``after``, in order."""
        from sqlalchemy import select

        table = self._events
        query = select(table).where(table.c.n > after).order_by(table.c.n).limit(limit)
        if name:
            query = query.where(table.c.job == name)
        if kinds:
            query = query.where(table.c.kind.in_(list(kinds)))
        with self._engine.connect() as connection:
            return [Event(r.n, r.job, r.at, r.kind, r.run, json.loads(r.body)) for r in connection.execute(query)]

    def last_event(self) -> int:
        """Return the number of the newest event, 0 where there is none."""
        from sqlalchemy import func, select

        with self._engine.connect() as connection:
            return int(connection.execute(select(func.max(self._events.c.n))).scalar() or 0)

    def _nothing_waits(self) -> bool:
        """Check without a lock, as idle workers do all the time."""
        from sqlalchemy import select

        query = select(self._jobs.c.id).where(self._jobs.c.state.in_(("queued", "running"))).limit(1)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is None

    def _end(
        self, connection: Connection, name: str, state: str, error: str, now: float, attempt: int | None = None
    ) -> None:
        jobs = self._jobs
        own = [jobs.c.id == name, jobs.c.state == "running"] + [jobs.c.attempt == attempt] * (attempt is not None)
        new = {"state": state, "error": error, "ended": now, "worker": "", "stopping": 0}
        if connection.execute(jobs.update().where(*own).values(**new)).rowcount:
            self._write(connection, name, [JobUpdate("state", {"state": state, "error": error})])

    def _write(self, connection: Connection, name: str, updates: Iterable[JobUpdate]) -> None:
        table, now = self._events, tables.clock(connection)
        for item in updates:
            if item.latest:
                old = (table.c.job == name, table.c.run == item.run, table.c.latest == item.latest)
                connection.execute(table.delete().where(*old))
            row = {"job": name, "at": now, "kind": item.kind, "run": item.run, "latest": item.latest}
            connection.execute(table.insert().values(**row, body=json.dumps(dict(item.body))))


def _job(row: Mapping[str, Any]) -> Job:
    columns = {name: value for name, value in row.items() if name != "asked"}
    parsed = {name: json.loads(row[column]) for name, column in PARSED.items()}
    return Job(**{**columns, **parsed, "stopping": bool(row["stopping"])})
