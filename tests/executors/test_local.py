from contextlib import closing
from dataclasses import replace

from fake_grids import alive, fresh_server
from fake_runs import FUNCTION, spec
from iadbe.executors.local import Local
from iadbe.running.executor import RunFinished, RunProgress, RunStarted
from iadbe.running.store import Store
from iadbe.running.worker import RunContext
from iadbe.types import Options


def local(root, jobs, **options):
    return Local(RunContext(root, Options(device="cpu", **options), FUNCTION, ()), jobs)


def test_runs_start_in_order_and_never_too_many_at_a_time(tmp_path):
    specs = [spec(seed=i) for i in range(7)]
    events = list(local(tmp_path, 3).run(specs))
    assert [e.spec.seed for e in events if isinstance(e, RunStarted)] == list(range(7))
    assert sorted(e.spec.seed for e in events if isinstance(e, RunFinished)) == list(range(7))
    at_a_time = most = 0
    for event in events:
        at_a_time += isinstance(event, RunStarted) - isinstance(event, RunFinished)
        most = max(most, at_a_time)
    assert most == 3
    assert len(list(Store(tmp_path))) == 7


def test_a_free_slot_takes_the_next_run_while_others_work(tmp_path):
    long = replace(spec("waits_for", 99), place={"folder": str(tmp_path)})
    seen = []
    for event in local(tmp_path / "store", 2).run([long, *(spec(seed=i) for i in range(3))]):
        if isinstance(event, RunFinished):
            seen.append(event.spec.seed)
        if len(seen) == 3:
            (tmp_path / "go").touch()
    assert seen == [0, 1, 2, 99]


def test_a_crash_ends_only_its_own_run(tmp_path):
    fresh_server()
    tasks = ["segfault", "well", "vanishes", "hog", "says"]
    events = list(local(tmp_path, 2, memory_limit=200 * 10**6).run([spec(t) for t in tasks]))
    errors = {e.spec.task: e.result.error for e in events if isinstance(e, RunFinished)}
    assert {task for task, error in errors.items() if not error} == {"well", "says"}
    assert set(errors) == set(tasks)
    assert any(isinstance(e, RunProgress) and e.report.phase == "fit" for e in events)


def test_what_another_process_has_done_meanwhile_is_taken_over(tmp_path):
    first, second = spec(seed=1), spec(seed=2)
    list(local(tmp_path, 1).run([second]))
    events = [e for e in local(tmp_path, 1).run([first, second]) if e.spec == second]
    assert [type(e) for e in events] == [RunFinished]
    assert events[0].seconds == 0
    assert events[0].result.rows[0].value == 0.02


def test_threads_are_shared_among_the_slots(tmp_path):
    events = local(tmp_path, 1, threads=5).run([spec()])
    (finished,) = (e for e in events if isinstance(e, RunFinished))
    assert finished.result.environment["threads"] == 5


def test_closing_ends_what_is_under_way(tmp_path):
    with closing(local(tmp_path, 2).run([spec("sleeps", i) for i in range(4)])) as events:
        pids = [next(events).pid, next(events).pid]
    assert not any(alive(pid) for pid in pids)
    assert not list((tmp_path / ".part").glob("*"))
    assert not list(Store(tmp_path))
