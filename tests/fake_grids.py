"""Grids of fake runs, in this process or in one of their own that can be interrupted and killed."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from multiprocessing import forkserver

import psutil

import tied
from fake_runs import FUNCTION, spec
from iadbe.running import pool
from iadbe.running.process import RunProcess
from iadbe.running.store import Store
from iadbe.running.worker import RunContext
from iadbe.types import Options, RunSpec


def run_all(specs, root, options=None, **how):
    how = {"jobs": 2, "function": FUNCTION, "preload": (), **how}
    return pool.run_all(specs, Store(root), options or Options(device="cpu"), **how)


def blocked(folder, seeds):
    return [RunSpec("padim", "toy", "vanilla", "waits_for", s, place={"folder": str(folder)}) for s in seeds]


class Grid:
    """A grid in a process of its own, whose runs 0 and 1 are done and whose runs 2 and 3 wait for a file."""

    def __init__(self, folder, executor="local", scheduler=""):
        self.folder, self.root = folder, folder / "store"
        self.specs = [spec(seed=0), spec(seed=1), *blocked(folder, (2, 3)), spec(seed=4)]
        self.how = {"executor": executor, "scheduler": scheduler}
        code = textwrap.dedent(f"""
            import signal, sys
            from pathlib import Path
            from fake_grids import run_all
            from iadbe.types import RunSpec
            if __name__ == "__main__":
                for number in (signal.SIGTERM, signal.SIGHUP):  # as in a terminal, even where the tests are not
                    signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                specs, root, how = {self.specs!r}, Path({str(self.root)!r}), {self.how!r}
                try:
                    run_all(specs, root, **how)
                except KeyboardInterrupt:
                    sys.exit(130)
        """)
        script = folder / "grid.py"
        script.write_text(code)
        self.process = subprocess.Popen(
            tied.command(script), env=paths(), start_new_session=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def pids(self):
        return [int(p.read_text() or 0) for p in sorted(self.folder.glob("pid-*"))]

    def wait_until_blocked(self):
        wait_until(lambda: len([p for p in self.pids() if p]) == 2 and len(list(Store(self.root))) == 2)

    def done(self):
        return sorted(r.spec.seed for r in Store(self.root))

    def end(self):
        try:
            said = self.process.stderr.read()  # its end is that of the process, whose input stays open till then
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdin.close()
            self.process.stderr.close()
        wait_until(lambda: not any(alive(pid) for pid in self.pids()))
        return self.process.returncode, said

    def finish_here(self):
        """Run the same grid again, here, to its end; return its tally and its numbers."""
        (self.folder / "go").touch()
        summary = run_all(self.specs, self.root)
        return summary, {r.spec.seed: r.rows[0].value for r in Store(self.root) if not r.error}


def reports_until_end(child):
    """Wait for the end of a run's process; return what it has reported."""
    said = []
    while child.result is None:
        said += child.poll()
        time.sleep(0.01)
    return said


def start_one_more(connection, root):
    """Carry out a run in a process of a process that is a daemon, as dask's workers are."""
    multiprocessing.current_process()._config["daemon"] = True
    child = RunProcess(spec(), RunContext(root, Options(device="cpu"), FUNCTION, ()))
    reports_until_end(child)
    connection.send(child.result.rows[0].value)


def send_two_gpus(connection):
    """Report two GPUs."""
    connection.send(2)


def crash(connection):
    """End as with a broken driver."""
    os._exit(1)


def paths():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def fresh_server():
    """Let the next process come from a new fork server, small and without what earlier tests have imported."""
    forkserver._forkserver._stop()


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
