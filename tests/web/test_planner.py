import threading

import psutil
import pytest

from iadbe.errors import BadConfig, UnknownName
from iadbe.running.store import Store
from iadbe.web import planner as module
from iadbe.web.planner import Planner, summarize
from iadbe.web.problems import RequestRefused

GRID = {"detectors": ["padim", "dfm"], "data": [{"name": "toy", "params": {"count": 5}, "categories": ["metal"]}]}
SLOW = {"detectors": ["padim"], "data": [{"name": "toy", "params": {"count": 50_000_000}}]}


@pytest.fixture
def planner(tmp_path):
    made = Planner(tmp_path / "runs")
    yield made
    made.close()


def test_a_plan_is_the_same_as_in_this_process(planner):
    found = planner.plan(GRID)
    assert (found["runs"], found["done"], found["skipped"]) == (2, 0, 0)
    assert found == summarize(GRID, planner.root)
    pid = planner._process.pid
    assert planner.plan(GRID) == found
    assert planner._process.pid == pid  # the process is reused


def test_runs_in_the_store_are_counted(planner):
    from iadbe.running import plan
    from iadbe.types import RunResult

    Store(planner.root).save(RunResult(plan.expand(GRID).runs[0]))
    assert planner.plan(GRID)["done"] == 1


def test_errors_keep_their_kind(planner):
    with pytest.raises(UnknownName, match="Did you mean padim"):
        planner.plan({"detectors": ["padin"], "data": ["toy"]})
    with pytest.raises(BadConfig, match="needs data"):
        planner.plan({"detectors": ["padim"]})


def test_a_plan_that_takes_too_long_is_ended(planner, monkeypatch):
    monkeypatch.setattr(module, "MAX_SECONDS", 1.0)
    with pytest.raises(BadConfig, match="longer than"):
        planner.plan(SLOW)
    monkeypatch.setattr(module, "MAX_SECONDS", 30.0)
    assert planner.plan(GRID)["runs"] == 2  # a new process


def test_a_plan_that_takes_too_much_memory_is_ended(planner, monkeypatch):
    planner.plan(GRID)
    monkeypatch.setattr(module, "MAX_MEMORY", psutil.Process(planner._process.pid).memory_info().rss + 50 * 2**20)
    with pytest.raises(BadConfig, match="memory"):
        planner.plan(SLOW)


def test_a_plan_ends_when_its_client_has_gone(planner):
    gone = threading.Event()
    threading.Timer(0.5, gone.set).start()
    with pytest.raises(RequestRefused):  # a plan that takes too long or too much memory is another error
        planner.plan(SLOW, gone)


def test_the_process_ends_with_its_input(planner):
    planner.plan(GRID)
    process = planner._process
    process.stdin.close()
    assert process.wait(20) == 0
