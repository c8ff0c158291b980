"""The tables of the jobs: SQLite in a file of its own beside the runs, or PostgreSQL by URL, in the index's database.

The index can be deleted and rebuilt at any time, jobs cannot. So in a store they have a file of their own.
"""

from __future__ import annotations

import atexit
import sqlite3
import tempfile
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.results import database
from iadbe.running.store import Store

if TYPE_CHECKING:  # SQLAlchemy takes long to import
    from sqlalchemy import Connection, Engine, MetaData

FILE = "jobs.sqlite"
SCHEMA = 1  # of the tables below


@cache
def schema() -> MetaData:
    """Return the tables ``jobs_about``, ``jobs`` and ``job_events``."""
    from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, MetaData, Table, Text

    tables = MetaData()
    Table("jobs_about", tables, Column("schema", Integer, nullable=False))
    Table(
        "jobs",
        tables,
        Column("id", Text, primary_key=True),
        Column("state", Text, nullable=False, index=True),
        Column("title", Text, nullable=False),
        Column("asked", Text, nullable=False),  # the grid as it was requested, JSON
        Column("grid", Text, nullable=False),  # the same with the folders of this machine
        Column("how", Text, nullable=False),  # JSON: fields of Options, and `jobs`, `retry_failed`
        Column("created", Float, nullable=False, index=True),  # seconds since 1970, of the database's clock
        Column("started", Float),
        Column("ended", Float),
        Column("worker", Text, nullable=False, default=""),
        Column("attempt", Integer, nullable=False, default=0),
        Column("beat", Float),  # when its worker last was alive
        Column("stopping", Integer, nullable=False, default=0),
        *(Column(name, Integer, nullable=False, default=0) for name in ("total", "already", "done", "failed")),
        Column("error", Text, nullable=False, default=""),
    )
    number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself only what it calls INTEGER
    Table(
        "job_events",
        tables,
        Column("n", number, primary_key=True, autoincrement=True),
        Column("job", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
        Column("at", Float, nullable=False),
        Column("kind", Text, nullable=False),
        Column("run", Text, nullable=False, default=""),
        Column("latest", Text, nullable=False, default=""),  # not empty: only the newest of this name and run is kept
        Column("body", Text, nullable=False),
        sqlite_autoincrement=True,  # a number is never used again, so readers miss nothing
    )
    return tables


def opened(store: Store, url: str) -> Engine:
    """Connect to the database of a store's jobs, and make the tables where there are none."""
    from sqlalchemy import inspect, select
    from sqlalchemy.exc import DBAPIError

    if not url:
        try:
            store.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadConfig(f"{store.root} cannot be made: {error.strerror}. Give another folder.") from error
    file = store.root / FILE if url or not store.is_read_only else _copied(store.root / FILE)
    where = database.address(url or f"sqlite:///{file}")
    engine = database.connect(where)
    about = schema().tables["jobs_about"]
    try:
        with database.writing(engine) as connection:
            if not inspect(connection).has_table("jobs_about"):
                schema().create_all(connection)
                connection.execute(about.insert().values(schema=SCHEMA))
            found = connection.execute(select(about.c.schema)).scalar()
    except DBAPIError as error:
        shown = where.render_as_string(hide_password=True)
        raise BadConfig(f"the jobs in {shown} cannot be used: {str(error.orig).strip()}") from error
    if found != SCHEMA:
        raise BadConfig(f"the jobs were written by another version of IADBE (tables {found}, here {SCHEMA}).")
    return engine


def _copied(file: Path) -> Path:
    """Copy the jobs of a read-only store to a temporary file, which is deleted when the process ends."""
    folder = tempfile.mkdtemp(prefix="iadbe-")
    atexit.register(system.remove_tree, folder)
    target = Path(folder) / FILE
    if file.is_file():
        address = f"{file.absolute().as_uri()}?immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
    return target


def clock(connection: Connection) -> float:
    """Return the database's time, which is one for all machines."""
    if connection.dialect.name == "postgresql":
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
    return time.time()
