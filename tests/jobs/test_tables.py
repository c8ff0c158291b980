import sqlite3
import time

import pytest
from sqlalchemy import text

from iadbe.errors import BadConfig
from iadbe.jobs import tables
from iadbe.jobs.queue import Queue
from iadbe.results.index import RunIndex
from iadbe.running.store import Store


def test_the_index_can_be_thrown_away_and_jobs_stay(store):
    with Queue(store) as queue:
        job = queue.add({"detectors": ["padim"]})
    with RunIndex(store) as index:
        index.rebuild()
    (store.root / "index.sqlite").write_bytes(b"garbage" * 1000)
    with RunIndex(store) as index:
        assert index.results() == []
    with Queue(store) as queue:
        assert queue.get(job.id) == job


def test_they_share_a_database_where_one_is_given(store):
    url = f"sqlite:///{store.root.parent / 'all.db'}"
    store.root.mkdir()
    with Queue(store, url) as queue, RunIndex(store, url) as index:
        job = queue.add({})
        index.rebuild()
        assert queue.get(job.id) == job
    assert not (store.root / tables.FILE).exists()


def test_tables_of_another_version_are_left_alone(store):
    Queue(store).close()
    with sqlite3.connect(store.root / tables.FILE) as connection:
        connection.execute("UPDATE jobs_about SET schema = 99")
    connection.close()
    with pytest.raises(BadConfig, match="another version"):
        Queue(store)


def test_what_is_no_database_is_one_sentence(store):
    store.root.mkdir()
    (store.root / tables.FILE).write_bytes(b"this is no database" * 200)
    with pytest.raises(BadConfig, match=r"jobs\.sqlite cannot be used"):
        Queue(store)
    with pytest.raises(BadConfig, match="mysql"):
        Queue(store, "mysql://x/y")
    (store.root.parent / "file").write_text("")
    with pytest.raises(BadConfig, match="cannot be made"):
        Queue(Store(store.root.parent / "file" / "runs"))


def test_the_clock_and_the_log(store):
    engine = tables.opened(store, "")
    with engine.connect() as connection:
        assert abs(tables.clock(connection) - time.time()) < 5
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    engine.dispose()
