import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from fake_runs import FUNCTION, spec
from iadbe import progress
from iadbe.jobs import worker
from iadbe.jobs.queue import Queue
from iadbe.jobs.worker import LOSSES, GridReporter, run_job, serve
from iadbe.running import plan
from iadbe.running.executor import GridPlanned, RunFinished, RunProgress, RunStarted
from iadbe.seeds import run_id
from iadbe.types import Row, RunResult

HOW = {"function": FUNCTION, "preload": ("fake_runs",)}
SCRIPT = """
import sys
from pathlib import Path
import test_worker
from iadbe.jobs import worker
from iadbe.running.store import Store
worker.plan.expand = test_worker.planned_by_task
worker.serve(Store(Path(sys.argv[1])), until_empty=len(sys.argv) > 2, **test_worker.HOW)
"""


def planned_by_task(grid, store=None):
    """Plan runs that do what their task says: the grid names the tasks, and a folder."""
    place = {"folder": grid.get("folder", "")}
    made = [spec(task, seed=n) for n, task in enumerate(grid["tasks"])]
    return plan.Plan(tuple(type(s)(**{**{f: getattr(s, f) for f in s.__slots__}, "place": place}) for s in made))


@pytest.fixture(autouse=True)
def believed(monkeypatch):
    monkeypatch.setattr(worker.plan, "expand", planned_by_task)
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, even where the tests are not
    yield
    signal.signal(signal.SIGINT, before)


def start(store, *more):
    """Start a worker in a process of its own."""
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests / "jobs"), str(tests), str(tests.parent / "src")])
    command = [sys.executable, "-c", SCRIPT, str(store.root), *more]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)


def until(condition, seconds=40):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def test_a_job_from_beginning_to_end(queue, store):
    job = queue.add({"tasks": ["well", "says", "raises"]}, {"threads": 1, "jobs": 1})
    said = []
    serve(store, until_empty=True, log=said.append, **HOW)
    over = queue.get(job.id)
    assert (over.state, over.total, over.done, over.failed, over.already) == ("done", 3, 2, 1, 0)
    assert over.worker == ""
    events = queue.events(job.id)
    kinds = [e.kind for e in events]
    assert kinds[:2] == ["state", "state"]
    assert kinds[-1] == "state"
    assert kinds.count("started") == kinds.count("finished") == 3
    assert "planned" in kinds
    says = next(e.run for e in events if e.kind == "started" and e.body["task"] == "says")
    of_says = [e for e in events if e.run == says]
    assert of_says[-1].kind == "finished"
    assert of_says[-1].body["values"] == {"image_auroc": 1.0}
    assert {"phase": "fit", "done": 100, "total": 100} in [e.body for e in of_says]
    assert 0.5 in [e.body.get("value") for e in of_says]
    failed = next(e.body for e in events if e.kind == "finished" and e.body["task"] == "raises")
    assert "a bug" in failed["error"]
    assert any("2 runs done, 1 failed" in line for line in said)


def test_what_the_store_has_is_not_done_again(queue, store):
    queue.add({"tasks": ["well", "says"]}, {"jobs": 1})
    second = queue.add({"tasks": ["well", "says", "surroundings"]}, {"jobs": 1})
    serve(store, until_empty=True, log=str, **HOW)
    assert (queue.get(second.id).already, queue.get(second.id).done) == (2, 1)


def test_a_grid_that_cannot_be_planned_fails_the_job_and_not_the_worker(queue, store, monkeypatch):
    from iadbe.errors import BadConfig

    def refuse(grid, store):
        if not grid:
            raise BadConfig("the grid needs data.")
        return planned_by_task(grid)

    monkeypatch.setattr(worker.plan, "expand", refuse)
    bad, good = queue.add({}), queue.add({"tasks": ["well"]})
    serve(store, until_empty=True, log=str, **HOW)
    assert (queue.get(bad.id).state, queue.get(bad.id).error) == ("failed", "the grid needs data.")
    assert queue.get(good.id).state == "done"


def test_a_stop_ends_what_is_under_way_and_keeps_what_is_done(queue, store):
    job = queue.add({"tasks": ["well", "sleeps"]}, {"jobs": 1})

    def stop():
        until(lambda: "sleeps" in [e.body.get("task") for e in queue.events(job.id) if e.kind == "started"])
        queue.stop(job.id)

    stopper = threading.Thread(target=stop)
    stopper.start()
    serve(store, until_empty=True, log=str, **HOW)
    stopper.join()
    assert queue.get(job.id).state == "stopped"
    assert [r.spec.task for r in store] == ["well"]
    assert not list((store.root / ".part").glob("*"))


def test_a_job_that_was_lost_is_dropped_at_once(queue, store):
    job = queue.add({"tasks": ["sleeps"]}, {"jobs": 1})
    taken = queue.take("me")

    def steal():
        until(lambda: [e for e in queue.events(job.id) if e.kind == "started"])
        with Queue(store, stale=-60.0) as other:
            assert other.take("thief").attempt == 2

    thief = threading.Thread(target=steal)
    thief.start()
    run_job(queue, taken, store, **HOW)
    thief.join()
    assert (queue.get(job.id).state, queue.get(job.id).worker) == ("running", "thief")
    assert list(store) == []


def test_an_interrupt_gives_the_job_back(queue, store):
    job = queue.add({"tasks": ["well", "sleeps"]}, {"jobs": 1})
    process = start(store)
    until(lambda: "sleeps" in [e.body.get("task") for e in queue.events(job.id) if e.kind == "started"])
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    assert "stopping" in out
    assert (queue.get(job.id).state, queue.get(job.id).attempt) == ("queued", 0)
    assert [r.spec.task for r in store] == ["well"]


def test_a_killed_workers_job_is_finished_by_another(store, tmp_path):
    with Queue(store, stale=1.5) as queue:
        job = queue.add({"tasks": ["well", "waits_for", "waits_for"], "folder": str(tmp_path)}, {"jobs": 1})
        process = start(store)
        until(lambda: (tmp_path / "pid-1").exists())
        pid = int((tmp_path / "pid-1").read_text() or 0)
        process.kill()
        process.communicate()
        until(lambda: not Path(f"/proc/{pid}").exists())  # its run has died with it
        assert queue.get(job.id).state == "running"
        (tmp_path / "go").touch()
        taken = until(lambda: queue.take("alive"))
        assert taken.attempt == 2
        run_job(queue, taken, store, **HOW)
        over = queue.get(job.id)
        assert (over.state, over.already, over.done) == ("done", 1, 2)


class TestGridReporter:
    def test_losses_thin_out(self):
        reporter, one = GridReporter(), spec()
        for n in range(10 * LOSSES):
            reporter(RunProgress(one, progress.Report("loss", value=1 / (n + 1))))
        reporter(RunProgress(one, progress.Report("loss", value=float("nan"))))
        losses = [n.body for n in reporter.updates() if n.kind == "loss"]
        assert LOSSES < len(losses) <= 4 * LOSSES
        steps = [b["n"] for b in losses]
        assert steps == sorted(set(steps))
        assert steps[-1] - steps[-2] == 8
        assert reporter.updates() == []

    def test_only_the_newest_progress_is_reported_and_none_after_the_end(self):
        reporter, one = GridReporter(), spec()
        reporter(GridPlanned(2, 1))
        reporter(RunStarted(one, os.getpid()))
        for done in range(5):
            reporter(RunProgress(one, progress.Report("fit", done, 5)))
        told = reporter.updates()
        assert [n.kind for n in told] == ["planned", "started", "progress", "memory"]
        assert told[2].body == {"phase": "fit", "done": 4, "total": 5}
        assert told[3].body["bytes"] > 10**6
        reporter(RunProgress(one, progress.Report("fit", 5, 5)))
        rows = (Row(0, "a", "image_auroc", 0.5), Row(0, "b", "image_auroc", 1.0), Row(0, "a", "x", float("nan")))
        reporter(RunFinished(one, RunResult(one, rows=rows), 1.5))
        told = reporter.updates()
        assert [n.kind for n in told] == ["progress", "finished"]
        assert told[1].body["values"] == {"image_auroc": 0.75}
        assert told[1].run == run_id(one)
        assert reporter.counts == {"done": 1, "failed": 0, "total": 2, "already": 1}


class Gate:
    """A proxy in front of PostgreSQL that can go away, and come back at the same address."""

    def __init__(self, port):
        self.target, self.pairs, self.listening = port, [], None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.open()

    def open(self):
        self.listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listening,), daemon=True).start()

    def close(self):
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self.listening.close()
        for connection in self.pairs:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.pairs.clear()

    def _accept(self, listening):
        with suppress(OSError):
            while True:
                here, _ = listening.accept()
                there = socket.create_connection(("127.0.0.1", self.target))
                self.pairs += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one, other):
        with suppress(OSError):
            while piece := one.recv(65536):
                other.sendall(piece)
        for connection in (one, other):
            connection.close()


class TestDatabaseAway:
    @pytest.fixture
    def gate(self, postgres, monkeypatch):
        monkeypatch.setattr(worker, "RETRY_SECONDS", (0.05, 0.2))
        monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)
        gate = Gate(int(postgres.rpartition(":")[2].partition("/")[0]))
        gate.url = postgres.replace(f":{gate.target}/", f":{gate.port}/")
        yield gate
        gate.close()

    def away(self, gate, seconds=1.5):
        gate.close()
        time.sleep(seconds)
        gate.open()

    def test_a_job_is_finished_and_the_next_one_taken(self, gate, postgres, store, tmp_path):
        """The database goes away while a job runs, at its end, and while the worker waits."""
        lines = []
        with Queue(store, postgres) as queue:
            job = queue.add({"tasks": ["waits_for"], "folder": str(tmp_path)}, {"jobs": 1})

            def meanwhile():
                until(lambda: any(e.kind == "started" for e in queue.events(job.id)))
                gate.close()
                (tmp_path / "go").touch()
                time.sleep(2)
                gate.open()
                until(lambda: queue.get(job.id).state == "done")
                self.away(gate)
                second = queue.add({"tasks": ["well"]})
                until(lambda: queue.get(second.id).state == "done")
                os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=meanwhile)
            thread.start()
            serve(store, gate.url, log=lines.append, **HOW)
            thread.join()
            assert queue.get(job.id).done == 1
        assert sum("is away" in line for line in lines) >= 2
        assert sum("is back" in line for line in lines) >= 2
        assert len(lines) < 20

    @pytest.mark.slow
    def test_a_server_that_is_stopped_for_ten_seconds_and_started_again(self, postgres, store, tmp_path, monkeypatch):
        """The server's processes end; a job that runs meanwhile is finished, and the next one is taken."""
        monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)
        lines, states = [], []

        def meanwhile():
            with Queue(store, postgres) as queue:
                job = queue.add({"tasks": ["waits_for"], "folder": str(tmp_path)}, {"jobs": 1})
                until(lambda: any(e.kind == "started" for e in queue.events(job.id)))
            postgres.stop()
            (tmp_path / "go").touch()
            time.sleep(10)
            postgres.start()
            with Queue(store, postgres) as queue:
                until(lambda: queue.get(job.id).state == "done")
                second = queue.add({"tasks": ["well"]})
                until(lambda: queue.get(second.id).state == "done")
                states.extend(queue.get(one.id).state for one in (job, second))
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=meanwhile)
        thread.start()
        serve(store, postgres, log=lines.append, **HOW)
        thread.join()
        assert states == ["done", "done"]
        assert any("is away" in line for line in lines)
        assert any("is back" in line for line in lines)

    def test_a_job_goes_on_while_the_database_is_away_for_long(self, monkeypatch):
        """While it is away nobody can take the job; when it is back it says whose job it is."""
        from sqlalchemy.exc import OperationalError

        answers = [OperationalError("SELECT 1", {}, Exception("refused"))] * 3 + ["", "lost"]

        def beat(*_):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        heartbeat = worker.Heartbeat(
            SimpleNamespace(beat=beat, stale=0.0), SimpleNamespace(id="x"), GridReporter(), str
        )
        assert [heartbeat._beat() for _ in range(5)] == ["", "", "", "", "lost"]

    def test_a_stopped_worker_does_not_wait_for_the_database(self, monkeypatch):
        from sqlalchemy.exc import OperationalError

        slept = []
        clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
        monkeypatch.setattr(worker, "time", clock)

        def fails():
            raise OperationalError("SELECT 1", {}, Exception("connection refused"))

        with pytest.raises(OperationalError):
            worker.retrying(fails, str, 4 * worker.RETRY_SECONDS[0])
        assert len(slept) == 2  # a pause, and one twice as long
        assert sum(slept) <= 4 * worker.RETRY_SECONDS[0]
