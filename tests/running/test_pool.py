import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from fake_grids import Grid, paths, run_all
from fake_runs import spec
from iadbe.errors import BadConfig, NoSpace, UnknownName
from iadbe.running import pool
from iadbe.running.executor import GridPlanned, RunFinished, RunStarted
from iadbe.running.store import Store
from iadbe.types import RunResult


def test_a_grid_and_the_same_again(tmp_path):
    specs = [spec(seed=i) for i in range(3)] + [spec("segfault")]
    events = []
    summary = run_all([*specs, specs[0]], tmp_path, listener=events.append)
    assert (summary.done, summary.failed, summary.already, summary.total) == (3, 1, 0, 4)
    assert events[0] == GridPlanned(4, 0)
    assert {e.spec.task for e in events if isinstance(e, RunFinished) and e.result.error} == {"segfault"}
    events.clear()
    summary = run_all(specs, tmp_path, listener=events.append)
    assert (summary.done, summary.failed, summary.already) == (0, 0, 4)
    assert events == [GridPlanned(4, 4)]


def test_failed_runs_are_tried_again_only_on_request(tmp_path):
    specs = [spec(), spec("surroundings"), spec("vanishes")]
    run_all(specs[:2], tmp_path, function="fake_runs:crashes")
    assert all(r.error for r in Store(tmp_path))
    run_all(specs[:1], tmp_path, retry_failed=True)
    summary = run_all(specs, tmp_path, retry_failed=True)
    assert (summary.done, summary.failed, summary.already) == (1, 1, 1)
    assert {r.spec.task for r in Store(tmp_path) if r.error} == {"vanishes"}


def test_what_cannot_be_asked_for(tmp_path):
    with pytest.raises(BadConfig, match="is for --executor dask"):
        run_all([spec()], tmp_path, scheduler="tcp://localhost:8786")
    with pytest.raises(UnknownName, match="no executor is named 'lokal'"):
        run_all([spec()], tmp_path, executor="lokal")
    with pytest.raises(BadConfig, match="-2 runs at a time"):
        run_all([spec()], tmp_path, jobs=-2)


def test_a_listener_that_breaks_stops_the_grid_in_good_order(tmp_path):
    def listener(event):
        if isinstance(event, RunStarted) and event.spec.task == "sleeps":
            raise RuntimeError("no screen")

    with pytest.raises(RuntimeError, match="no screen"):
        run_all([spec(), spec("sleeps")], tmp_path, jobs=1, listener=listener)
    assert [r.spec.task for r in Store(tmp_path)] == ["well"]
    assert not list((tmp_path / ".part").glob("*"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


WHOLE = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.03, 4: 0.04}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_loses_nothing(tmp_path, number):
    grid = Grid(tmp_path)
    grid.wait_until_blocked()
    grid.process.send_signal(number)
    code, said = grid.end()
    assert (code, said) == (130, "")
    assert grid.done() == [0, 1]
    assert not list((grid.root / ".part").glob("*"))
    summary, values = grid.finish_here()
    assert (summary.done, summary.already) == (3, 2)
    assert values == WHOLE


def test_ctrl_c_in_a_terminal_ends_the_process_group_and_prints_no_traceback(tmp_path):
    grid = Grid(tmp_path)
    grid.wait_until_blocked()
    os.killpg(grid.process.pid, signal.SIGINT)
    assert grid.end() == (130, "")
    assert grid.done() == [0, 1]


def test_a_whole_job_that_is_terminated_records_no_failures(tmp_path):
    """Batch systems send SIGTERM to every process of a job at once: the runs end before their parent does."""
    grid = Grid(tmp_path)
    grid.wait_until_blocked()
    for pid in [*grid.pids(), *(c.pid for c in psutil.Process(grid.process.pid).children()), grid.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert grid.end()[0] == 130
    assert grid.done() == [0, 1]


def test_a_killed_grid_leaves_no_orphan_and_goes_on(tmp_path):
    grid = Grid(tmp_path)
    grid.wait_until_blocked()
    grid.process.send_signal(signal.SIGKILL)
    assert grid.end()[0] == -signal.SIGKILL
    assert len(list((grid.root / ".part").glob("*"))) == 2  # swept by the next start
    summary, values = grid.finish_here()
    assert (summary.done, summary.already) == (3, 2)
    assert values == WHOLE
    assert not list((grid.root / ".part").glob("*"))


def test_two_grids_at_once_on_one_store(tmp_path):
    grid = Grid(tmp_path)
    grid.wait_until_blocked()
    (tmp_path / "go").touch()
    summary = run_all(grid.specs, grid.root)
    assert summary.failed == 0
    assert grid.end() == (0, "")
    assert grid.finish_here()[1] == WHOLE


def test_many_writers_of_one_run(tmp_path):
    """Processes that save the same run at the same moment: there is one, it is whole, and nothing is left over."""
    code = textwrap.dedent(f"""
        from iadbe.running.store import Store
        from iadbe.types import RunResult
        from fake_runs import spec
        for _ in range(60):
            Store({str(tmp_path)!r}).save(RunResult(spec(), seconds={{"total": 1.0}}))
    """)
    writers = [subprocess.Popen([sys.executable, "-c", code], env=paths()) for _ in range(3)]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    assert [r.seconds for r in Store(tmp_path)] == [{"total": 1.0}]
    assert not list((tmp_path / ".part").glob("*"))


@pytest.mark.parametrize("executor", ["local", pytest.param("dask", marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_grid_and_is_not_recorded(tmp_path, executor):
    """It says nothing about the runs, so the same call goes on when there is room again."""
    if executor == "dask":
        pytest.importorskip("distributed")
    specs = [spec(seed=0), spec("fills_the_disk"), spec("sleeps", seconds=50), spec(seed=1)]
    with pytest.raises(NoSpace, match="the disk is full"):
        run_all(specs, tmp_path, executor=executor)
    assert not [r for r in Store(tmp_path) if r.error]
    assert not list((tmp_path / ".part").glob("*"))


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match=r"results cannot be stored in .*: not a directory. Give another folder"):
        run_all([spec()], tmp_path / "file/store")

    def refused(*arguments, **more):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    run_all([spec()], tmp_path / "store")
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(BadConfig, match="read-only file system. Give another folder with --store DIR"):
        run_all([spec(), spec(seed=1)], tmp_path / "store")
    assert run_all([spec()], tmp_path / "store").already == 1  # nothing to write


def test_a_failure_of_a_machine_that_an_earlier_version_stored_is_tried_again(tmp_path):
    store = Store(tmp_path)
    store.save(RunResult(spec(), error="cuda is not on this machine: torch sees 0 GPUs."))
    store.save(RunResult(spec(seed=1), error="ValueError: a bug"))
    assert not store.has(spec())
    assert store.load(store.path(spec()).name).transient
    summary = run_all([spec(), spec(seed=1)], tmp_path)  # without retry_failed
    assert (summary.done, summary.failed, summary.already) == (1, 0, 1)
    assert store.load(store.path(spec()).name).error == ""
    assert store.has(spec())


def test_a_failure_of_this_machine_is_not_stored_and_tried_again(tmp_path):
    specs = [spec("lacks"), spec()]
    first = run_all(specs, tmp_path)
    assert (first.done, first.failed, [r.error for r in first.transient]) == (1, 1, ["there is no GPU."])
    store = Store(tmp_path)
    assert [r.spec.task for r in store] == ["well"]
    assert [r.error for r in pool.results(store, specs, first.transient)] == ["there is no GPU.", ""]
    second = run_all(specs, tmp_path)  # without retry_failed
    assert (second.failed, second.already) == (1, 1)
