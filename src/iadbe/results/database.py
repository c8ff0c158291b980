"""The index's database: SQLite in a file or in memory, or PostgreSQL by URL; tables and transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from iadbe.errors import BadConfig, Missing

if TYPE_CHECKING:  # SQLAlchemy takes long to import
    from sqlalchemy import URL, Connection, Engine, MetaData

SCHEMA = 1  # version of the tables below; a database with another one is rebuilt
WAIT_MS = 30_000  # for another writer's transaction
NETWORK = {  # of PostgreSQL's client: seconds after which a server that does not answer is away; by default hours
    "connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}  # fmt: skip
LOCK = 7_244_223  # key of PostgreSQL's advisory lock


@cache
def schema() -> MetaData:
    """Return the tables ``about``, ``runs`` and ``rows``."""
    from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, MetaData, Table, Text

    tables = MetaData()
    names = ("run", "detector", "dataset", "setting", "task", "protocol", "data")
    Table("about", tables, Column("schema", Integer, nullable=False))
    Table(
        "runs",
        tables,
        Column("folder", Text, primary_key=True),
        Column("stamp", Text, nullable=False),  # of its result.json; if it changes, the run is read again
        *(Column(name, Text, nullable=False, index=name in ("run", "dataset")) for name in names),
        Column("seed", BigInteger, nullable=False),
        Column("error", Text, nullable=False),
        Column("date", Text, nullable=False),
        Column("latency_ms", Float),
        Column("fit_seconds", Float),
        Column("peak_bytes", BigInteger),
        Column("document", Text, nullable=False),  # result.json without its rows, which are in the next table
    )
    Table(
        "rows",
        tables,
        Column("folder", Text, ForeignKey("runs.folder", ondelete="CASCADE"), primary_key=True),
        Column("n", Integer, primary_key=True),  # the order in the run
        Column("step", Integer, nullable=False),
        Column("test", Text, nullable=False),
        Column("metric", Text, nullable=False),
        Column("value", Float),  # NULL: not defined
    )
    return tables


def prepare(engine: Engine) -> None:
    """Create the tables. Tables of another version are dropped: the folders hold all their data."""
    from sqlalchemy import inspect, select

    about = schema().tables["about"]
    with engine.connect() as connection:
        if inspect(connection).has_table("about") and _version(connection) == SCHEMA:
            return
    with writing(engine) as connection:
        if inspect(connection).has_table("about"):
            if connection.execute(select(about.c.schema)).scalars().first() == SCHEMA:
                return
            for name in ("rows", "runs", "about"):
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        schema().create_all(connection)
        connection.execute(about.insert().values(schema=SCHEMA))


def _version(connection: Connection) -> int | None:
    return connection.exec_driver_sql("SELECT schema FROM about").scalar()


def address(url: str) -> URL:
    """Read a database's URL: ``sqlite:///FILE``, ``sqlite://`` (in memory) or ``postgresql://USER@HOST/NAME``."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        found = make_url(url.replace("postgres://", "postgresql://", 1))
    except ArgumentError as error:
        raise BadConfig(f"{url!r} is no database's URL. Write it as postgresql://user@host/name.") from error
    drivers = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
    if found.get_backend_name() not in drivers:
        raise BadConfig(f"the index cannot be kept in {found.get_backend_name()}: there are sqlite and postgresql.")
    return found.set(drivername=drivers[found.get_backend_name()])


def connect(where: URL) -> Engine:
    """Return an engine. SQLite uses a write-ahead log, waits for other writers and begins no transaction by itself."""
    from sqlalchemy import NullPool, StaticPool, create_engine, event

    if where.get_backend_name() == "postgresql":
        try:
            limits = {name: value for name, value in NETWORK.items() if name not in where.query}
            return create_engine(where, pool_pre_ping=True, connect_args=limits)
        except ImportError as error:
            raise Missing("PostgreSQL needs an extra: pip install 'iadbe[postgres]'") from error
    pool = NullPool if where.database else StaticPool
    engine = create_engine(where, poolclass=pool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # BEGIN is sent explicitly
        connection.execute(f"PRAGMA busy_timeout={WAIT_MS}")
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("iadbe_begin", "BEGIN"))

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open an exclusive write transaction; others see all of it or nothing."""
    with engine.connect() as connection:
        connection = connection.execution_options(iadbe_begin="BEGIN IMMEDIATE")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            yield connection


def is_damage(error: Exception) -> bool:
    """Return whether SQLite found its file damaged, or deleted and created again by another process."""
    origin = getattr(error, "orig", None)
    return type(origin) is sqlite3.DatabaseError or "no such table" in str(origin) or "disk I/O" in str(origin)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log, once per file; SQLite does not wait for others in that switch, so retry."""
    for attempt in range(20):
        try:
            if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] in ("wal", "memory"):
                return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == 19:
                raise
        connection.execute("BEGIN IMMEDIATE")  # this waits
        connection.execute("ROLLBACK")
