import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap

import psutil
import pytest

from fake_grids import fresh_server, paths, reports_until_end, start_one_more, wait_until
from fake_runs import FUNCTION, spec
from iadbe.progress import Report
from iadbe.running.process import RunProcess
from iadbe.running.worker import ProgressSender, RunContext, function, start
from iadbe.types import Options


def context(root, **options):
    return RunContext(root, Options(device="cpu", **options), FUNCTION, ())


class TestProcess:
    def test_all_it_prints_is_in_its_log_and_nowhere_else(self, tmp_path, capfd):
        child = RunProcess(spec("says"), context(tmp_path))
        reports_until_end(child)
        assert child.result.rows[0].value == 1.0
        log = child.context.store.log(child.spec).read_text()
        assert "hello from python" in log
        assert "hello from C" in log
        assert capfd.readouterr() == ("", "")

    def test_a_second_log_replaces_the_first(self, tmp_path):
        for _ in range(2):
            child = RunProcess(spec("says"), context(tmp_path))
            reports_until_end(child)
        assert child.context.store.log(child.spec).read_text().count("hello from C") == 1

    def test_surroundings_are_the_callers_of_this_moment(self, tmp_path, monkeypatch):
        fresh_server()
        reports_until_end(RunProcess(spec(), context(tmp_path, threads=3)))
        monkeypatch.setenv("IADBE_MARK", "now")  # the fork server is older
        child = RunProcess(spec("surroundings"), context(tmp_path, threads=3), {"CUDA_VISIBLE_DEVICES": "7"})
        reports_until_end(child)
        assert child.context.store.log(child.spec).read_text().startswith("env 3 7 now no-torch")

    def test_threads_hold_for_torch_and_numpy_imported_before_the_fork(self, tmp_path):
        code = f"""
            from fake_runs import spec
            from fake_grids import reports_until_end
            from iadbe.running.process import RunProcess
            from iadbe.types import Options
            from iadbe.running.worker import RunContext
            for threads in (1, 2):
                options, preload = Options(threads=threads), ("torch", "numpy")
                context = RunContext({str(tmp_path)!r}, options, "fake_runs:with_torch", preload)
                child = RunProcess(spec(), context)
                reports_until_end(child)
                print(not child.result.error, *child.result.environment["threads"])
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=paths(), timeout=100
        )
        assert done.stdout.split() == ["True", "1", "1", "True", "2", "2"], done.stderr

    def test_processes_share_a_server_and_have_their_own_sessions(self, tmp_path):
        children = [RunProcess(spec("sleeps", i), context(tmp_path)) for i in range(2)]
        wait_until(lambda: all(os.getsid(c.pid) == c.pid for c in children))
        assert len({psutil.Process(c.pid).ppid() for c in children}) == 1
        for child in children:
            child.kill()

    def test_the_users_script_is_not_imported_again(self, tmp_path):
        """Scripts without ``if __name__ == "__main__"`` must not start grids in grids."""
        script = tmp_path / "script.py"
        script.write_text(
            textwrap.dedent(f"""
            print("script runs", flush=True)
            from pathlib import Path
            from fake_runs import spec
            from iadbe.running.pool import run_all
            from iadbe.running.store import Store
            from iadbe.types import Options
            print(run_all([spec()], Store({str(tmp_path / "store")!r}), Options(device="cpu"), function={FUNCTION!r},
                  preload=()).done)
            """)
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=paths(), timeout=60)
        assert done.stdout.split("\n")[:2] == ["script runs", "1"], done.stderr

    def test_it_may_have_children_even_where_the_parent_is_a_daemon(self, tmp_path):
        """Dask's workers are daemons, and a detector may use worker processes."""
        ours, theirs = multiprocessing.Pipe()
        process = start(start_one_more, (theirs, tmp_path), ())
        process.join(30)
        assert ours.poll(0)
        assert ours.recv() == 0.0


class TestProgressSender:
    @pytest.fixture
    def ends(self):
        ours, theirs = multiprocessing.Pipe()
        yield ours, theirs
        ours.close()
        theirs.close()

    def test_it_says_the_first_and_the_last_and_few_between(self, ends):
        ours, theirs = ends
        sender = ProgressSender(theirs)
        for done in range(1, 1001):
            sender(Report("fit", done, 1000))
        sender.send_outcome(None, "the end")
        heard = []
        while ours.poll():
            heard.append(ours.recv())
        assert heard[0] == Report("fit", 1, 1000)
        assert heard[-2:] == [Report("fit", 1000, 1000), (None, "the end")]
        assert len(heard) < 500

    def test_it_never_waits_for_a_parent_that_does_not_listen(self, ends):
        _, theirs = ends
        with socket.socket(fileno=os.dup(theirs.fileno())) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender = ProgressSender(theirs)
        for number in range(10_000):
            sender(Report(f"phase {number}", 1, 1))


def test_function_is_imported_by_name():
    assert function("os:getpid") is os.getpid


def test_no_run_outlives_a_killed_parent(tmp_path):
    """Not even one that does not listen to SIGTERM, nor what it has started itself."""
    code = textwrap.dedent(f"""
        import time
        from fake_runs import spec
        from iadbe.running.process import RunProcess
        from iadbe.running.worker import RunContext
        from iadbe.types import Options
        context = RunContext({str(tmp_path)!r}, Options(device="cpu"), {FUNCTION!r}, ())
        child = RunProcess(spec("starts_a_child"), context)
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=paths(), start_new_session=True
    )
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: child.children())
        family = [child, psutil.Process(child.ppid()), *child.children()]
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
