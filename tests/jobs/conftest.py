import pytest

from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from results.test_database import postgres  # noqa: F401  (a server of our own, where there is one)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def queue(store):
    with Queue(store) as queue:
        yield queue
