import threading

import pytest

import fake_results
from iadbe.errors import BadConfig, UnknownName
from iadbe.jobs import queue as queue_module
from iadbe.jobs.queue import JobUpdate, Queue
from iadbe.results.index import RunIndex

GRID = {"detectors": ["padim"], "data": ["toy"]}


def states(queue):
    return [job.state for job in reversed(queue.list_jobs()[0])]


def test_first_come_first_served(queue):
    first, second = queue.add(GRID, {"threads": 1}, requested={"data": ["mine"]}, title="first"), queue.add(GRID)
    assert (first.state, first.grid, first.how, first.requested) == ("queued", GRID, {"threads": 1}, {"data": ["mine"]})
    taken = queue.take("w1")
    assert (taken.id, taken.state, taken.worker, taken.attempt, taken.title) == (first.id, "running", "w1", 1, "first")
    assert queue.take("w2").id == second.id
    assert queue.take("w3") is None
    queue.beat(taken, (), {"total": 3, "done": 2, "nonsense": 7})
    queue.end(taken, "done")
    over = queue.get(first.id)
    assert (over.state, over.total, over.done, over.is_over) == ("done", 3, 2, True)
    assert over.created <= over.started <= over.ended


def test_many_workers_take_each_job_once(store):
    with Queue(store) as queue:
        wanted = {queue.add(GRID).id for _ in range(30)}
    taken = []

    def work(name):
        with Queue(store) as mine:
            while (job := mine.take(name)) is not None:
                taken.append(job.id)

    workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken) == sorted(wanted)


def test_a_dead_workers_job_is_taken_again_and_the_dead_one_has_lost_it(store):
    with Queue(store, stale=0.0) as queue:
        job = queue.add(GRID)
        old = queue.take("dead")
        new = queue.take("alive")
        assert (new.id, new.attempt, new.worker) == (job.id, 2, "alive")
        assert queue.beat(old, [JobUpdate("loss", {"value": 1.0})]) == "lost"
        queue.end(old, "failed", "too late")
        assert queue.beat(new) == ""
        assert queue.get(job.id).state == "running"
        assert "loss" not in [e.kind for e in queue.events(job.id)]


def test_a_living_workers_job_is_not_taken(queue):
    queue.add(GRID)
    queue.take("alive")
    assert queue.take("other") is None


def test_a_job_that_kills_its_workers_fails(store):
    with Queue(store, stale=0.0) as queue:
        job = queue.add(GRID)
        assert [queue.take("w").attempt for _ in range(queue_module.MAX_ATTEMPTS)] == [1, 2, 3]
        assert queue.take("w") is None
        assert queue.get(job.id).state == "failed"
        assert "died 3 times" in queue.get(job.id).error


def test_a_returned_job_is_no_failed_attempt(store):
    with Queue(store, stale=0.0) as queue:
        job = queue.add(GRID)
        for _ in range(5):
            taken = queue.take("w")
            queue.release(taken)
        assert (queue.get(job.id).state, queue.get(job.id).attempt) == ("queued", 0)
        assert queue.beat(taken) == "lost"


def test_stopping(queue):
    waits, runs = queue.add(GRID), queue.add(GRID)
    assert queue.stop(waits.id).state == "stopped"
    taken = queue.take("w")
    assert taken.id == runs.id
    assert queue.beat(taken) == ""
    assert queue.stop(runs.id).stopping
    assert queue.beat(taken) == "stop"
    assert queue.beat(taken) == "stop"  # until it has
    queue.end(taken, "stopped")
    again = queue.stop(runs.id)
    assert (again.state, again.stopping) == ("stopped", False)
    kinds = [(e.body["state"], e.body.get("stopping")) for e in queue.events(runs.id)]
    assert kinds == [("queued", None), ("running", None), ("running", True), ("stopped", None)]


def test_what_should_stop_when_its_worker_dies_does(store):
    with Queue(store, stale=0.0) as queue:
        job = queue.add(GRID)
        queue.take("dead")
        queue.stop(job.id)
        assert queue.take("alive") is None
        assert queue.get(job.id).state == "stopped"


def test_events_come_once_and_in_order(queue):
    job, other = queue.add(GRID), queue.add(GRID)
    taken = queue.take("w")
    queue.beat(taken, [JobUpdate("progress", {"done": n}, "r1", "progress fit") for n in range(3)])
    queue.beat(
        taken, [JobUpdate("progress", {"done": 9}, "r2", "progress fit"), JobUpdate("loss", {"value": 0.5}, "r1")]
    )
    found = queue.events(job.id)
    told = [(e.kind, e.run, e.body) for e in found][2:]
    assert told == [("progress", "r1", {"done": 2}), ("progress", "r2", {"done": 9}), ("loss", "r1", {"value": 0.5})]
    assert [e.n for e in found] == sorted({e.n for e in found})
    seen = found[-1].n
    queue.beat(taken, [JobUpdate("progress", {"done": 3}, "r1", "progress fit")])
    (new,) = queue.events(job.id, after=seen)
    assert new.body == {"done": 3}
    assert new.n > seen
    assert queue.last_event() == new.n
    assert {e.job for e in queue.events(kinds=["state"])} == {job.id, other.id}


def test_a_number_is_never_used_again(queue):
    job = queue.add(GRID)
    last = queue.last_event()
    queue.stop(job.id)
    queue.remove(job.id)
    assert queue.events() == []
    queue.add(GRID)
    assert queue.events()[0].n > last


def test_lists_in_parts(queue):
    names = [queue.add(GRID, title=str(n)).id for n in range(5)]
    queue.take("w")
    found, total = queue.list_jobs(limit=2, offset=1)
    assert ([j.title for j in found], total) == (["3", "2"], 5)
    assert [j.id for j in queue.list_jobs(["running"])[0]] == names[:1]
    assert states(queue) == ["running"] + ["queued"] * 4


def test_what_cannot_be_done(queue, monkeypatch):
    job = queue.add(GRID)
    with pytest.raises(BadConfig, match="is not over"):
        queue.remove(job.id)
    for method in (queue.get, queue.stop, queue.remove):
        with pytest.raises(UnknownName, match="no job"):
            method("none")
    monkeypatch.setattr(queue_module, "MAX_WAITING", 1)
    with pytest.raises(BadConfig, match="are waiting already"):
        queue.add(GRID)


def test_postgresql_does_all_of_it_beside_the_index(postgres, store):
    store.save(fake_results.result("padim", "bottle"))
    with Queue(store, postgres, stale=60.0) as queue, RunIndex(store, postgres) as index:
        wanted = sorted(queue.add(GRID, title=str(n)).id for n in range(12))
        taken = []

        def work(name):
            with Queue(store, postgres, stale=60.0) as mine:
                while (job := mine.take(name)) is not None:
                    for n in range(3):
                        news = [JobUpdate("progress", {"n": n}, "r", "fit"), JobUpdate("loss", {"n": n}, "r")]
                        assert mine.beat(job, news, {"done": n}) == ""
                    taken.append(job.id)

        workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(taken) == wanted
        events = queue.events(limit=10_000)
        assert [e.n for e in events] == sorted({e.n for e in events})
        mine = [e for e in events if e.job == wanted[0]]
        assert [e.kind for e in mine].count("progress") == 1
        assert [e.body["n"] for e in mine if e.kind == "loss"] == [0, 1, 2]
        assert index.rebuild() == 1
        assert queue.get(wanted[0]).done == 2
        assert queue.stop(wanted[0]).stopping
        assert [j.title for j in queue.list_jobs(limit=2)[0]] == ["11", "10"]
    with Queue(store, postgres, stale=0.0) as queue:
        assert queue.take("heir").attempt == 2
