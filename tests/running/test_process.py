import os
import signal

import psutil
import pytest

from fake_grids import alive, reports_until_end, wait_until
from fake_runs import FUNCTION, spec
from iadbe.progress import Report
from iadbe.running.process import (
    RunProcess,
    completed_result,
    failed_result,
    log_tail,
    resident_memory,
    stop,
)
from iadbe.running.store import Store
from iadbe.running.worker import RunContext
from iadbe.seeds import run_id
from iadbe.types import Options, Row, RunResult


def begun(root, task, /, environment=None, function=FUNCTION, **options):
    return RunProcess(spec(task), RunContext(root, Options(device="cpu", **options), function, ()), environment)


def said_in(child):
    return "".join(log_tail(child.context.store.log(child.spec)))


def test_a_run_that_goes_well(tmp_path):
    child = begun(tmp_path, "says", threads=2)
    said = reports_until_end(child)
    assert Report("fit", 100, 100) in said
    assert Report("loss", value=0.5) in said
    assert child.result.error == ""
    assert (
        completed_result(Store(tmp_path), child.spec).rows == child.result.rows == (Row(0, "test", "image_auroc", 1.0),)
    )
    assert not alive(child.pid)


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("segfault", {}, ["crashed: killed by signal 11 (SIGSEGV)", "the last word", "in segfault"]),
        ("killed", {}, ["killed by signal 9: probably the system ran out of memory"]),
        ("vanishes", {}, ["exit code 0 and without a result"]),
        ("raises", {}, ["ValueError: a bug"]),
        ("refuses", {}, ["x.png cannot be read."]),
        ("sleeps", {"time_limit": 0.5}, ["stopped after", "time limit 0.5 s"]),
        ("stubborn", {"time_limit": 0.5}, ["time limit 0.5 s"]),
        ("hog", {"memory_limit": 200 * 10**6}, ["killed at", "memory limit 200 MB"]),
        ("starts_a_hog", {"memory_limit": 200 * 10**6}, ["memory limit 200 MB"]),
        ("returns_a_function", {}, ["TypeError", "not JSON serializable"]),
    ],
)
def test_a_run_that_goes_wrong_is_a_result(tmp_path, task, options, words):
    child = begun(tmp_path, task, **options)
    reports_until_end(child)
    for word in words:
        assert word in child.result.error
    assert Store(tmp_path).load(Store(tmp_path).path(child.spec).name).error == child.result.error
    assert not list((tmp_path / ".part").glob("*"))
    assert not alive(child.pid)


def test_what_a_run_has_started_ends_with_it(tmp_path):
    child = begun(tmp_path, "starts_a_child", time_limit=3)
    wait_until(lambda: psutil.Process(child.pid).children())
    (grandchild,) = psutil.Process(child.pid).children()
    reports_until_end(child)
    wait_until(lambda: not alive(grandchild.pid))


def test_a_result_that_was_saved_is_not_lost_to_a_crash(tmp_path):
    child = begun(tmp_path, "well", function="fake_runs:saves_and_crashes")
    reports_until_end(child)
    assert child.result.error == ""
    assert Store(tmp_path).load(Store(tmp_path).path(child.spec).name).error == ""


def test_a_result_that_cannot_be_sent_is_a_crash(tmp_path):
    child = begun(tmp_path, "well", function="fake_runs:returns_unpicklable")
    reports_until_end(child)
    assert "exit code 1" in child.result.error
    assert "returns_unpicklable" in child.result.error


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path):
    child = begun(tmp_path, "raises")
    reports_until_end(child)
    assert 'raise ValueError("a bug")' in child.context.store.log(child.spec).read_text()


class TestStop:
    def test_a_run_may_tidy_up(self, tmp_path):
        child = begun(tmp_path, "tidies", {"IADBE_MARK": str(tmp_path / "tidied")})
        wait_until(lambda: "begun" in said_in(child))
        stop([child], grace=30)
        assert (tmp_path / "tidied").exists()
        assert not alive(child.pid)

    def test_one_that_does_not_listen_is_killed(self, tmp_path):
        child = begun(tmp_path, "stubborn")
        wait_until(lambda: "deaf" in said_in(child))
        stop([child, begun(tmp_path, "sleeps")], grace=0.2)
        assert not alive(child.pid)
        Store(tmp_path).sweep()
        assert not list((tmp_path / ".part").glob("*"))
        assert not list(Store(tmp_path))

    def test_a_second_interrupt_shortens_the_waiting(self, tmp_path):
        child = begun(tmp_path, "stubborn")
        wait_until(lambda: "deaf" in said_in(child))
        before = signal.signal(signal.SIGALRM, lambda *_: signal.default_int_handler(signal.SIGINT, None))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                stop([child], grace=60)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert not alive(child.pid)


def test_sweeping_spares_what_is_under_way(tmp_path):
    child = begun(tmp_path, "sleeps")
    wait_until(lambda: list((tmp_path / ".part").glob("*")))
    Store(tmp_path).sweep()
    assert list((tmp_path / ".part").glob("*"))
    child.kill()
    Store(tmp_path).sweep()
    assert not list((tmp_path / ".part").glob("*"))


def test_good_passes_over_what_failed_or_is_damaged(tmp_path):
    store = Store(tmp_path)
    assert completed_result(store, spec()) is None
    store.save(failed_result(spec(), "it broke", 1.5, 7))
    assert completed_result(store, spec()) is None
    folder = store.save(RunResult(spec()))
    assert run_id(completed_result(store, spec()).spec) == run_id(spec())
    (folder / "result.json").write_text("{")
    assert completed_result(store, spec()) is None


def test_resident_memory_counts_children_and_ignores_ended_processes(tmp_path):
    assert resident_memory(os.getpid()) > 10**7
    assert resident_memory(2**22 + 1) == 0


def test_last_lines_show_where_a_crash_was(tmp_path):
    log = tmp_path / "x.log"
    assert log_tail(log) == []
    log.write_text("\n".join(f"line {i}" for i in range(9999)) + "\n\n")
    assert log_tail(log, 2) == ["line 9997", "line 9998"]
    stack = "".join(f"  File {i}\n" for i in range(50))
    log.write_text("a\nb\nc\nd\nFatal Python error: Aborted\n\n" + stack)
    assert log_tail(log, 6) == ["b", "c", "d", "Fatal Python error: Aborted", "  File 0", "  File 1"]
