import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import event

from fake_results import finish, plain, result, start_writer
from iadbe.errors import BadConfig
from iadbe.results import database
from iadbe.results.index import RunIndex, RunQuery, SyncReport
from iadbe.running.store import Store


class Server(str):
    """The URL of a PostgreSQL server, which can be stopped and started again."""


@pytest.fixture(scope="module")
def postgres():
    """Start a PostgreSQL server of our own, as somebody who is not root, and yield its URL."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs psycopg")
    debian = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ.get("PATH", ""), *debian])
    initdb, pg_ctl = shutil.which("initdb", path=path), shutil.which("pg_ctl", path=path)
    if not (initdb and pg_ctl):
        pytest.skip("there is no PostgreSQL server on this machine (initdb, pg_ctl)")
    somebody = []
    if os.geteuid() == 0:
        if not shutil.which("runuser") or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("initdb refuses root, and there is no user postgres to become")
        somebody = ["runuser", "-u", "postgres", "--"]
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not among pytest's, which only their owner may enter
    if somebody:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, log = folder / "data", folder / "log"

    def run(*command):
        return subprocess.run([*somebody, *command], cwd="/", capture_output=True, text=True, timeout=120)

    made = run(initdb, "-D", str(data), "-A", "trust", "-U", "iadbe", "--no-sync", "--locale=C", "-E", "UTF8")
    assert made.returncode == 0, made.stderr
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

    def start():
        started = subprocess.run(
            [*somebody, pg_ctl, "-D", str(data), "-l", str(log), "-w", "-o", options, "start"],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
        assert started.returncode == 0, log.read_text() if log.exists() else "it did not start"

    start()
    server = Server(f"postgresql://iadbe@127.0.0.1:{port}/postgres")
    server.start, server.stop = start, lambda: run(pg_ctl, "-D", str(data), "-m", "immediate", "stop")
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_postgresql_gives_what_sqlite_gives(postgres, tmp_path):
    store = Store(tmp_path / "runs")
    for task in ("bottle", "cable"):
        store.save(result("padim", task, {"image_auroc": 0.75, "pixel_auroc": float("nan")}))
    with RunIndex(store) as own, RunIndex(store, postgres) as index:
        assert index.sync() == SyncReport(2, 0, ())
        assert plain(index.results()) == plain(own.results())
        assert plain(index.results(RunQuery(category=("cable",)))) == plain(own.results(RunQuery(category=("cable",))))
        assert index.rebuild() == 2
    engine = database.connect(database.address(postgres))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE about SET schema = 0")
    engine.dispose()
    with RunIndex(store, postgres) as index:
        assert len(index.results()) == 2


def test_postgresql_takes_many_writers(postgres, tmp_path):
    finish([start_writer(tmp_path, f"d{i}", 15, postgres) for i in range(3)])
    with RunIndex(Store(tmp_path), postgres) as index:
        assert index.sync().added == 0
        assert len(index.results()) == 45


def test_an_unreachable_server_is_reported_without_its_password(tmp_path):
    with pytest.raises(BadConfig, match="cannot be used") as raised:
        RunIndex(Store(tmp_path), "postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(raised.value)


def test_urls():
    assert database.address("postgres://me@host/x").drivername == "postgresql+psycopg"
    assert database.address("sqlite:///a.db").drivername == "sqlite+pysqlite"


def test_a_server_that_does_not_answer_is_noticed_within_a_minute():
    pytest.importorskip("psycopg")
    address = database.address("postgresql://me@127.0.0.1:1/x?connect_timeout=3&tcp_user_timeout=5000")
    asked = []
    engine = database.connect(address)

    @event.listens_for(engine, "do_connect")
    def refused(dialect, record, arguments, parameters):
        asked.append(parameters)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        engine.connect()
    assert int(asked[0]["connect_timeout"]) == 3  # what the user has written wins
    assert int(asked[0]["tcp_user_timeout"]) == 5000
    assert asked[0]["keepalives_idle"] + asked[0]["keepalives_interval"] * asked[0]["keepalives_count"] <= 60


def test_sqlite_is_set_up(tmp_path):
    engine = database.connect(database.address(f"sqlite:///{tmp_path / 'x.sqlite'}"))
    with engine.connect() as connection:
        asked = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        assert [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked] == ["wal", 1, 30_000, 1]
