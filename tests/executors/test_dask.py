import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import psutil
import pytest

import tied
from fake_grids import Grid, alive, paths, run_all, wait_until
from fake_runs import elsewhere, spec
from iadbe.errors import BadConfig, IadbeError, Missing
from iadbe.running.executor import GridMessage, RunFinished, RunProgress, RunStarted
from iadbe.running.store import Store
from iadbe.types import Options

dask = pytest.importorskip("iadbe.executors.dask", exc_type=Missing)
run_all = partial(run_all, executor="dask")


class TestWithoutAScheduler:
    """A scheduler and workers are started for the occasion."""

    def test_a_grid(self, tmp_path):
        events = []
        specs = [spec("says"), spec("segfault"), spec("hog"), *(spec(seed=i) for i in range(4))]
        limited = Options(device="cpu", memory_limit=200 * 10**6)
        summary = run_all(specs, tmp_path, limited, listener=events.append)
        assert (summary.done, summary.failed) == (5, 2)
        for one in specs:
            kinds = [type(e) for e in events if getattr(e, "spec", None) == one]
            assert (kinds[0], kinds[-1]) == (RunStarted, RunFinished)
        assert RunProgress in {type(e) for e in events}
        assert {r.spec.seed: r.rows[0].value for r in Store(tmp_path) if r.spec.task == "well"}[3] == 0.03
        assert not list((tmp_path / ".part").glob("*"))

    def test_a_worker_that_dies_takes_no_run_with_it(self, tmp_path):
        once = replace(spec("kills_its_worker"), place={"once": str(tmp_path / "once")})
        specs = [once, *(spec(seed=i) for i in range(6))]
        summary = run_all(specs, tmp_path / "store")
        assert (tmp_path / "once").exists()
        assert (summary.done, summary.failed) == (7, 0)

    @pytest.mark.slow
    def test_a_run_that_kills_every_worker_is_an_error_of_its_own(self, tmp_path):
        summary = run_all([spec("kills_its_worker"), *(spec(seed=i) for i in range(4))], tmp_path)
        assert (summary.done, summary.failed) == (4, 1)
        (failed,) = (r for r in Store(tmp_path) if r.error)
        assert failed.spec.task == "kills_its_worker"
        assert "killed with its worker, 4 times" in failed.error

    def test_an_interrupt_loses_nothing(self, tmp_path):
        grid = Grid(tmp_path, "dask")
        grid.wait_until_blocked()
        os.killpg(grid.process.pid, signal.SIGINT)
        assert grid.end() == (130, "")
        assert grid.done() == [0, 1]
        assert not list((grid.root / ".part").glob("*"))
        summary, values = grid.finish_here()
        assert (summary.done, summary.already) == (3, 2)
        assert sorted(values) == [0, 1, 2, 3, 4]

    @pytest.mark.slow
    def test_a_killed_grid_leaves_no_orphan(self, tmp_path):
        grid = Grid(tmp_path, "dask")
        grid.wait_until_blocked()
        grid.process.send_signal(signal.SIGKILL)
        assert grid.end()[0] == -signal.SIGKILL
        assert grid.finish_here()[0].failed == 0


class Server:
    """A scheduler or a worker in a process of its own, which ends with this one even where tests are killed."""

    def __init__(self, log, *words):
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                tied.command(*words), env=paths(), stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def says(self, pattern):
        wait_until(lambda: re.search(pattern, self.log.read_text()), 60)
        return re.search(pattern, self.log.read_text())

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


def scheduler_in(folder):
    server = Server(
        folder / "scheduler.log",
        *("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
    )
    with killed_on_error(server):
        server.address = server.says(r"Scheduler at:\s+(tcp://\S+)")[1]
    return server


def worker_in(folder, address):
    """Serve in two slots, one of which says it has a GPU."""
    code = f"""
        from iadbe.errors import IadbeError
        from iadbe.running.executor import Slot
        from iadbe.executors import dask
        if __name__ == "__main__":
            dask.slots = lambda *_: (Slot(1), Slot(2, "7"))
            try:
                dask.serve({address!r}, log=lambda text: print(text, flush=True), preload=())
            except IadbeError as error:
                print("error:", error)
    """
    script = folder / "worker.py"
    script.write_text(textwrap.dedent(code))
    server = Server(folder / "worker.log", script)
    with killed_on_error(server):
        server.says("Ctrl-C stops")
    return server


@contextmanager
def killed_on_error(server):
    """Leave no process behind where it never becomes ready, or the wait is interrupted."""
    try:
        yield
    except BaseException:
        server.kill()
        raise


@pytest.fixture(scope="class")
def cluster(tmp_path_factory):
    """A scheduler and a worker, as on two machines."""
    folder = tmp_path_factory.mktemp("shared")
    scheduler = scheduler_in(folder)
    with ExitStack() as stack:
        stack.callback(scheduler.kill)
        worker = worker_in(folder, scheduler.address)
        stack.callback(worker.kill)
        yield scheduler, worker


def test_servers_of_tests_that_are_killed_do_not_stay(tmp_path):
    code = f"""
        import subprocess, sys, time
        import tied
        server = subprocess.Popen(
            tied.command("-m", "http.server", "0"), cwd={str(tmp_path)!r}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        print(server.pid, flush=True)
        time.sleep(60)
    """
    tests = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=paths(), stdout=-1, text=True)
    with tests:
        pid = int(tests.stdout.readline())
        wait_until(lambda: "http.server" in psutil.Process(pid).cmdline())
        tests.kill()
    wait_until(lambda: not alive(pid))


class TestWithAScheduler:
    def test_a_grid(self, tmp_path, cluster):
        scheduler, worker = cluster
        run_all([spec(), spec("segfault")], tmp_path, scheduler=scheduler.address)
        assert {r.spec.task: bool(r.error) for r in Store(tmp_path)} == {"well": False, "segfault": True}
        worker.says("GPU 7, 2 threads, for the scheduler at tcp://")
        worker.says("padim on well: started")
        worker.says("killed by signal 11 .SIGSEGV")

    def test_runs_that_need_a_gpu_go_where_one_is(self, tmp_path, cluster):
        specs = [spec("surroundings", seed) for seed in range(4)]
        run_all(specs, tmp_path, Options(device="cuda"), scheduler=cluster[0].address)
        for one in specs:
            assert Store(tmp_path).log(one).read_text().startswith("env 2 7")

    def test_a_worker_that_does_not_share_the_folder(self, tmp_path, cluster, monkeypatch):
        monkeypatch.setattr(dask, "attempt", elsewhere)
        with pytest.raises(BadConfig, match=r"does not see \S+/elsewhere. Give a folder that all"):
            run_all([spec()], tmp_path, scheduler=cluster[0].address)

    def test_a_client_that_dies_takes_its_runs_back(self, tmp_path, cluster):
        scheduler, worker = cluster
        grid = Grid(tmp_path, "dask", scheduler.address)
        grid.wait_until_blocked()
        grid.process.send_signal(signal.SIGKILL)
        grid.end()  # waits until the runs have ended
        worker.says("cancelled")
        assert grid.done() == [0, 1]
        wait_until(lambda: not list((grid.root / ".part").glob("*")))
        assert run_all([spec(seed=9)], grid.root, scheduler=scheduler.address).done == 1  # the worker is free again

    def test_a_worker_stops_when_asked_and_the_client_says_that_there_is_none(self, tmp_path, cluster):
        scheduler, worker = cluster
        assert worker.stop() == 0
        assert worker.log.read_text().rstrip().endswith("stopping")

        def listener(event):
            if isinstance(event, GridMessage):
                raise RuntimeError(event.text)

        with pytest.raises(RuntimeError, match=f"no worker is connected .* iadbe worker {scheduler.address}"):
            run_all([spec()], tmp_path, scheduler=scheduler.address, listener=listener)


def test_a_scheduler_that_dies_ends_the_grid_with_a_sentence(tmp_path, cluster, capfd):
    scheduler, worker = cluster
    slow = spec("sleeps", seconds=50)
    pids = []

    def listener(event):
        if isinstance(event, RunStarted) and event.spec == slow:
            pids.append(event.pid)
            scheduler.process.kill()

    with pytest.raises(IadbeError, match=r"scheduler at tcp://\S+ is gone. What is done is kept in"):
        run_all([spec(seed=1), spec(seed=2), slow], tmp_path, scheduler=scheduler.address, listener=listener)
    assert {r.spec.seed for r in Store(tmp_path) if r.spec != slow} >= {1}
    worker.says("error: the scheduler at tcp://.* is gone")
    wait_until(lambda: not alive(pids[0]))
    assert capfd.readouterr() == ("", "")


def test_an_unknown_address(tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT_TIMEOUT", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "127.0.0.1:no"):
        with pytest.raises(BadConfig, match=f"no dask scheduler answers at {address}. Start one with"):
            run_all([spec()], tmp_path, scheduler=address)
        with pytest.raises(BadConfig, match="no dask scheduler answers"):
            dask.serve(address, 1, "cpu", preload=())


def test_another_version_is_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"the worker on here has iadbe \S+, the client 9\.9"):
        dask._check_worker(spec(), dask.RunContext(tmp_path, Options()), "9.9", "here")


def test_without_dask_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "iadbe.executors.dask")
    with pytest.raises(Missing, match=re.escape("pip install 'iadbe[dask]'")):
        importlib.import_module("iadbe.executors.dask")
