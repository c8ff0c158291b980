import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fake_grids import paths, wait_until
from iadbe.running import fork_server

SLOW = "import time\ntime.sleep(30)\n"
CODE = textwrap.dedent("""
    import sys, time
    from iadbe.running import worker
    worker.start_fork_server(sys.argv[1:])
    print("ready", flush=True)
    time.sleep(60 if sys.argv[1:] == ["slow_to_import"] else 0)
""")


@pytest.fixture
def short():
    """A temporary folder with a short name: the path of a socket is limited."""
    with tempfile.TemporaryDirectory(prefix="fs", dir="/tmp") as folder:
        yield Path(folder)


def started(tmp_path, *modules):
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    environment = {**paths(), "TMPDIR": str(tmp_path)}
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    command = [sys.executable, "-c", CODE, *modules]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_it_ends_with_a_killed_parent_even_while_it_imports(short):
    with started(short, "slow_to_import") as process:
        assert process.stdout.readline() == "ready\n"
        (folder,) = short.glob("iadbe-*")
        servers = psutil.Process(process.pid).children(recursive=True)
        assert servers
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(s.is_running() and s.status() != psutil.STATUS_ZOMBIE for s in servers), seconds=15)
    wait_until(lambda: not folder.exists())


def test_it_leaves_no_folder_behind(short):
    with started(short) as process:
        assert process.stdout.readline() == "ready\n"
        process.wait(30)
    wait_until(lambda: not [*short.glob("iadbe-*"), *short.glob("pymp-*")])


def test_folders_of_dead_processes_are_swept(short, monkeypatch):
    config = {}
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setattr(fork_server.multiprocessing, "current_process", lambda: SimpleNamespace(_config=config))
    made = fork_server._folder()
    assert (made.is_dir(), config["tempdir"], fork_server._folder()) == (True, str(made), made)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host, _, start = made.name.removeprefix("iadbe-").split("-")
    left = short / f"iadbe-{host}-{dead.stdout.decode().strip()}-{start}"
    left.mkdir()
    config.clear()
    assert fork_server._folder() == made
    assert not left.exists()
