import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from fake_grids import alive, wait_until
from iadbe import system


def locked():
    """Return the error that Windows raises for a file that another process has open."""
    error = PermissionError(errno.EACCES, "The process cannot access the file")
    error.winerror = 32
    return error


@pytest.fixture
def busy(monkeypatch):
    """Let os.NAME fail as often as said, as on Windows while another process has the file open."""
    monkeypatch.setattr(system, "PAUSES", (0.001, 0.002))
    calls = []

    def made(name, times):
        whole = getattr(os, name)

        def function(*given, **more):
            calls.append(given)
            if len(calls) <= times:
                raise locked()
            return whole(*given, **more)

        monkeypatch.setattr(os, name, function)
        return calls

    return made


class TestLockedFiles:
    def test_a_file_is_replaced_when_its_reader_is_done(self, tmp_path, busy):
        (tmp_path / "new").write_text("new")
        (tmp_path / "old").write_text("old")
        calls = busy("replace", 3)
        system.replace(tmp_path / "new", tmp_path / "old")
        assert (tmp_path / "old").read_text() == "new"
        assert len(calls) == 4

    def test_a_folder_is_renamed_and_a_file_removed_when_the_reader_is_done(self, tmp_path, busy):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").touch()
        busy("rename", 2)
        system.rename(tmp_path / "a", tmp_path / "b")
        busy("unlink", 4)
        system.remove(tmp_path / "b" / "file")
        assert list((tmp_path / "b").iterdir()) == []

    def test_a_tree_is_removed_when_the_reader_is_done(self, tmp_path, busy):
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "file").touch()
        busy("unlink", 2)
        system.remove_tree(tmp_path / "a")
        assert not (tmp_path / "a").exists()

    def test_what_stays_locked_is_an_error_after_a_while_or_left_in_a_tree(self, tmp_path, busy, monkeypatch):
        monkeypatch.setattr(system, "PATIENCE", 0.02)
        (tmp_path / "file").touch()
        busy("unlink", 10**9)
        with pytest.raises(PermissionError):
            system.remove(tmp_path / "file")
        system.remove_tree(tmp_path)
        assert (tmp_path / "file").exists()

    def test_other_refusals_are_not_tried_again(self, tmp_path, monkeypatch):
        calls = []

        def refuse(*given):
            calls.append(given)
            raise PermissionError(errno.EACCES, "no")

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError):
            system.replace(tmp_path / "a", tmp_path / "b")
        assert len(calls) == 1

    def test_a_file_that_is_not_there(self, tmp_path):
        system.remove(tmp_path / "none")
        with pytest.raises(FileNotFoundError):
            system.remove(tmp_path / "none", missing_ok=False)
        system.remove_tree(tmp_path / "none")


class TestFolders:
    def test_folders_are_flushed_where_the_system_can(self, tmp_path, monkeypatch):
        flushed = []
        monkeypatch.setattr(os, "fsync", flushed.append)
        system.sync_folder(tmp_path)
        assert len(flushed) == 1

        def refuse(*_):
            raise PermissionError(errno.EACCES, "a folder cannot be opened")

        monkeypatch.setattr(os, "open", refuse)
        system.sync_folder(tmp_path)
        assert len(flushed) == 1

    def test_disks_that_refuse_to_flush_a_folder_are_fine_and_failing_ones_are_not(self, tmp_path, monkeypatch):
        def fails_with(number):
            def fsync(handle):
                raise OSError(number, "no")

            monkeypatch.setattr(os, "fsync", fsync)

        fails_with(errno.EINVAL)
        system.sync_folder(tmp_path)
        fails_with(errno.EIO)
        with pytest.raises(OSError, match="no"):
            system.sync_folder(tmp_path)

    def test_is_writable(self, tmp_path, monkeypatch):
        assert system.is_writable(tmp_path)
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert not system.is_writable(tmp_path)


class TestNames:
    @pytest.mark.parametrize(
        "name", ["CON", "nul", "aux.png", "Com1.tar.gz", "LPT9", "a?.png", "a:b", "x ", "x.", "a\tb", "NUL .txt"]
    )
    def test_names_that_windows_refuses(self, name):
        assert system.name_problem(name, windows=True)
        assert not system.name_problem(name, windows=False)

    @pytest.mark.parametrize("name", ["console.png", "aux_1.png", "com10", "nullen", ".con", "ä ö.png", "a.b.c"])
    def test_names_that_windows_allows(self, name):
        assert system.name_problem(name, windows=True) == ""

    def test_backslashes_of_a_user(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "good" / "train").mkdir(parents=True)
        assert system.user_path(r"good\train") == Path("good/train")
        assert system.user_path(r"good\none") == Path(r"good\none")
        (tmp_path / r"good\train").mkdir()
        assert system.user_path(r"good\train") == Path(r"good\train")
        assert system.user_path("~/x") == Path.home() / "x"

    def test_a_path_on_another_drive_stays_absolute(self, tmp_path, monkeypatch):
        assert system.relative(tmp_path / "a" / "b", tmp_path / "c") == "../a/b"

        def other_drive(*_):
            raise ValueError("path is on mount 'D:', start on mount 'C:'")

        monkeypatch.setattr(os.path, "relpath", other_drive)
        assert system.relative(tmp_path / "a", "c") == (tmp_path / "a").as_posix()

    def test_a_command_line_is_quoted_for_its_shell(self, monkeypatch):
        words = ["iadbe", "train", "--data", "my parts"]
        assert system.command_line(words) == "iadbe train --data 'my parts'"
        monkeypatch.setattr(os, "name", "nt")
        assert system.command_line(words) == 'iadbe train --data "my parts"'


class TestSignals:
    @pytest.mark.parametrize("portable", [False, True])
    def test_a_thread_interrupts_the_main_thread(self, portable, monkeypatch):
        if portable:
            monkeypatch.delattr(signal, "pthread_kill")
        before = signal.signal(signal.SIGTERM, lambda *_: heard.append(threading.current_thread()))
        heard = []
        try:
            thread = threading.Thread(target=system.interrupt_main, args=(signal.SIGTERM,))
            thread.start()
            thread.join()
            wait_until(lambda: heard)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert heard == [threading.main_thread()]

    def test_signals_are_blocked_and_let_through(self):
        with system.signals_blocked():
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def test_only_signals_that_exist_are_named(self):
        assert signal.SIGTERM in system.ENDING
        assert {signal.SIGINT, signal.SIGTERM} <= set(system.INTERRUPTS)
        assert system._signals("SIGTERM", "SIGNOWHERE") == (signal.SIGTERM,)

    def test_exit_codes_in_words(self):
        assert "probably the system ran out of memory" in system.crash_text(-9)
        assert system.crash_text(-40).startswith("crashed: killed by signal 40")
        assert "(SIGSEGV)" in system.crash_text(-11)
        assert "exit code 3 and" in system.crash_text(3)
        assert "0xc0000005 (access violation)" in system.crash_text(0xC0000005)


class TestProcesses:
    @pytest.mark.parametrize("with_groups", [True, False])
    def test_a_tree_is_killed_to_its_leaves(self, with_groups, monkeypatch):
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
        process = subprocess.Popen([sys.executable, "-c", code], **system.own_session())
        wait_until(lambda: psutil.Process(process.pid).children())
        (child,) = psutil.Process(process.pid).children()
        if not with_groups:
            monkeypatch.delattr(os, "killpg")
        system.kill_tree(process.pid)
        assert process.wait(10) == -signal.SIGKILL
        wait_until(lambda: not alive(child.pid))

    def test_what_a_session_has_left_is_killed(self):
        code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60'], stdout=-3); print(p.pid, flush=True)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=-1, text=True, **system.own_session())
        orphan = int(process.communicate()[0])
        assert alive(orphan)
        system.kill_session(process.pid)
        wait_until(lambda: not alive(orphan))

    def test_a_process_that_has_ended_is_no_error(self):
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        system.kill_tree(process.pid)

    def test_windows_waits_for_63_handles_at_most(self, monkeypatch):
        assert len(system.waitable(range(100))) == 100
        monkeypatch.setattr(system, "MOST_HANDLES", 60)
        assert system.waitable(range(100)) == list(range(60))


class TestMachine:
    def test_cores(self, monkeypatch):
        assert system.cores() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(psutil.Process, "cpu_affinity")
        assert system.cores() == os.cpu_count()

    def test_peak_memory_notices_a_large_array(self):
        before = system.peak_memory()
        np.ones(before // 8 + 40_000_000).sum()
        assert system.peak_memory() > before + 200_000_000

    @pytest.mark.skipif(system._malloc_trim() is None, reason="a habit of glibc")
    def test_freed_memory_between_blocks_that_live_on_is_given_back(self):
        code = """
import numpy as np, psutil
from iadbe import system
resident = lambda: psutil.Process().memory_info().rss
blocks = [np.ones(2**20 if i % 2 else 2**12, np.float32) for i in range(100)]
before = resident()
blocks = blocks[::2]
system.return_memory()
print(before - resident())
"""
        kept = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
        assert int(done.stdout) > 150e6

    def test_without_the_module_resource_the_system_tells_less(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "resource", None)
        assert system.peak_memory() > 10**7
        assert system.descriptor_limit(100) is None

    def test_the_descriptor_limit_is_raised_as_far_as_allowed(self):
        import resource

        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        try:
            assert system.descriptor_limit(300) == min(300, before[1])
            assert system.descriptor_limit(10) == min(300, before[1])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    def test_other_processes_are_noticed(self):
        code = "import time; end = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            used = psutil.Process(process.pid)
            wait_until(lambda: sum(used.cpu_times()[:2]) > 0.1)
            others, began, before = system.other_cores(), time.monotonic(), sum(used.cpu_times()[:2])
            time.sleep(1)
            share = (sum(used.cpu_times()[:2]) - before) / (time.monotonic() - began)
            assert others() > 0.8 * share - 0.05
        finally:
            process.kill()
            process.wait()

    def test_ones_own_work_does_not_count(self, monkeypatch):
        busy = iter([100.0, 103.0])
        own, wall = iter([5.0, 6.0]), iter([0.0, 4.0])
        monkeypatch.setattr(system, "_busy_seconds", lambda: next(busy))
        monkeypatch.setattr(system.time, "process_time", lambda: next(own))
        monkeypatch.setattr(system.time, "perf_counter", lambda: next(wall))
        assert system.other_cores()() == 0.5

    def test_processor(self):
        assert system.processor()


def test_patience_is_bounded(monkeypatch):
    monkeypatch.setattr(system, "PATIENCE", 0.05)
    began = time.monotonic()

    def work():
        raise locked()

    with pytest.raises(PermissionError):
        system._patiently(work)
    assert time.monotonic() - began < 2


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "card.json"
    with system.replacing(file) as part:
        assert (part.parent, part.suffix) == (tmp_path, ".json")
        part.write_text("whole")
    with pytest.raises(OSError, match="full"), system.replacing(file) as part:  # noqa: PT012
        part.write_text("half")
        raise OSError("the disk is full")
    assert file.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [file]
