"""What differs between Linux, macOS and Windows. No other module asks for the platform, and none uses names that
only some systems have.

Windows has no POSIX signals, sessions or fork, refuses to replace or remove a file that anybody has open, cannot flush
folders, and reserves names such as ``aux.png``. macOS has no death signal for children.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

if sys.platform == "darwin":
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # torch reads it once: mps lacks some operations

T = TypeVar("T")
Source = str | os.PathLike[str]

# ---- files -----------------------------------------------------------------------------------------------------------

LOCKED = (5, 32, 33)  # errors of Windows: access denied, sharing violation, lock violation
PATIENCE = 5.0  # seconds for which a file that another process has open is tried again
PAUSES = (0.01, 0.5)  # seconds: the first pause between two attempts, and the longest
MAPPED_FILES_ARE_LOCKED = os.name == "nt"  # a file that is mapped to memory can be neither replaced nor removed
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')


def replace(source: Source, target: Source) -> None:
    """Rename a file, over an existing one too, in one step; wait while another process has either open."""
    _patiently(lambda: os.replace(source, target))


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path beside ``file``, of the same ending, to write to; then it takes that place: whole or not at all."""
    part = file.with_name(f".{os.getpid()}.part.{file.name}")
    try:
        yield part
        replace(part, file)
    finally:
        remove(part)


def rename(source: Source, target: Source) -> None:
    """Rename a file or a folder to a name that is free; wait while another process has a file of it open."""
    _patiently(lambda: os.rename(source, target))


def remove(file: Source, missing_ok: bool = True) -> None:
    """Remove a file; wait while another process has it open."""
    with suppress(FileNotFoundError) if missing_ok else _nothing():
        _patiently(lambda: os.unlink(file))


def remove_tree(folder: Source) -> None:
    """Remove a folder as far as possible; wait while another process has a file of it open."""
    with suppress(OSError):
        _patiently(lambda: shutil.rmtree(folder))
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Source) -> None:
    """Make renames in a folder last through a power cut, where the system can flush folders."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; its journal keeps the order
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network disks refuse
            raise
    finally:
        os.close(handle)


def is_writable(folder: Path) -> bool:
    """Return whether this process may make files in an existing folder."""
    if not os.access(folder, os.W_OK):
        return False
    if os.name != "nt":
        return True
    try:  # on Windows, os.access does not know of access control lists
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def name_problem(name: str, windows: bool | None = None) -> str:
    """Return why a file or folder cannot have this name (a part of a path) here, or ``""``.

    Args:
        name: without separators
        windows: the rules of Windows; None: those of this system
    """
    if not (os.name == "nt" if windows is None else windows):
        return ""
    if RESERVED.fullmatch(name):
        return "Windows reserves this name for a device"
    if found := FORBIDDEN.search(name):
        return f"Windows allows no {found[0]!r} in names"
    return "Windows allows no dot or space at the end of a name" if name[-1:] in (".", " ") else ""


def user_path(text: Source) -> Path:
    r"""Return the path that a user means: ``~`` is the home folder, and ``a\b`` is ``a/b`` on every system.

    Elsewhere than on Windows a backslash may belong to a name: a path that exists as it is written stays so.
    """
    path = Path(text).expanduser()
    if "\\" in str(text) and os.sep == "/" and not os.path.lexists(path):
        slashes = Path(str(text).replace("\\", "/")).expanduser()
        return slashes if os.path.lexists(slashes) else path
    return path


def relative(path: Source, root: Source) -> str:
    """Return the path from ``root`` with forward slashes; the absolute one where it lies on another drive."""
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:  # Windows: D:\\a cannot be reached from C:\\b
        return Path(os.path.abspath(path)).as_posix()


def command_line(words: Sequence[str]) -> str:
    """Return a command as it is typed in this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _patiently(work: Callable[[], T]) -> T:
    """Do ``work``; where a file is locked by another process, try again with growing pauses."""
    deadline, pause = time.monotonic() + PATIENCE, PAUSES[0]
    while True:
        try:
            return work()
        except OSError as error:
            if getattr(error, "winerror", None) not in LOCKED or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, PAUSES[1])


# ---- signals ---------------------------------------------------------------------------------------------------------


def _signals(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


ENDING = _signals("SIGTERM", "SIGBREAK")  # ask a process to end; SIGBREAK: Ctrl-Break and closed consoles of Windows
INTERRUPTS = _signals("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # end a grid
KILLED = -9  # exit code of a process that SIGKILL has ended
STATUS = {  # exit codes of crashed processes on Windows
    0xC0000005: "access violation",
    0xC0000017: "no memory",
    0xC000001D: "illegal instruction",
    0xC0000094: "integer division by zero",
    0xC00000FD: "stack overflow",
    0xC0000135: "a DLL is missing",
    0xC000013A: "interrupted",
    0xC0000374: "heap corruption",
    0xC0000409: "stack buffer overrun",
}


def interrupt_main(number: signal.Signals = signal.SIGINT) -> None:
    """Send a signal to the main thread of this process, from any thread; its Python handler runs there.

    On Windows ``os.kill`` would end the process without its handlers.
    """
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # wakes it from system calls, too
    else:
        _thread.interrupt_main(number)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block :data:`INTERRUPTS` in this thread, and so in processes that the block starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Let all signals through, which a parent may have blocked."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def crash_text(code: int | None) -> str:
    """Explain the exit code of a process that left no result."""
    if code == KILLED:
        return "killed by signal 9: probably the system ran out of memory"
    if code is not None and code < 0:
        known = {int(s): s.name for s in signal.Signals}
        return f"crashed: killed by signal {-code} ({known.get(-code, 'a real-time signal')})"
    shown = f"{code:#x} ({STATUS[code]})" if code in STATUS else str(code)
    return f"crashed: its process ended with exit code {shown} and without a result"


# ---- processes -------------------------------------------------------------------------------------------------------

FORKS = sys.platform == "linux" and hasattr(os, "fork")  # macOS can fork too, but its libraries do not survive it
PR_SET_PDEATHSIG = 1  # of Linux's prctl
MOST_HANDLES = 60 if os.name == "nt" else None  # that Windows waits for at a time


def start_session() -> None:
    """Leave the session of the parent, so that Ctrl-C in its terminal does not reach this process."""
    if hasattr(os, "setsid"):
        with suppress(PermissionError):  # it leads one already
            os.setsid()


def own_session() -> dict[str, Any]:
    """Return the arguments of ``subprocess.Popen`` that keep Ctrl-C of this terminal away from the process."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}


def die_with_fork_server() -> None:
    """Be killed when the fork server that made this process ends; other processes watch their parent's pipe."""
    if FORKS:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kill a living process, all that it started, and the session that it leads; the caller itself last."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        doomed = [process, *process.children(recursive=True)]  # it first, so that it sees no child killed
        for each in doomed if pid != os.getpid() else doomed[1:]:
            with suppress(psutil.Error):
                each.kill()
    kill_session(pid)
    with suppress(psutil.Error):
        psutil.Process(pid).kill()


def kill_session(pid: int) -> None:
    """Kill what is left of the session that a process led, which may have ended."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def waitable(handles: Sequence[Any]) -> list[Any]:
    """Return the handles that ``multiprocessing.connection.wait`` can wait for at a time; it is called in a loop."""
    return list(handles[:MOST_HANDLES])


# ---- the machine -----------------------------------------------------------------------------------------------------


def cores() -> int:
    """Return how many cores this process may use."""
    import psutil

    with suppress(AttributeError, psutil.Error):  # macOS cannot tie processes to cores
        return len(psutil.Process().cpu_affinity() or ()) or os.cpu_count() or 1
    return os.cpu_count() or 1


def all_cores() -> int:
    """Return how many cores the machine has."""
    return os.cpu_count() or 1


def other_cores() -> Callable[[], float]:
    """Return a function that says how many cores other processes have used on average since this call."""
    began, busy, own = time.perf_counter(), _busy_seconds(), time.process_time()

    def since() -> float:
        others = _busy_seconds() - busy - (time.process_time() - own)
        return max(0.0, others) / max(time.perf_counter() - began, 1e-3)

    return since


def _busy_seconds() -> float:
    """Return the CPU time of all processes since the machine was started."""
    import psutil

    found = psutil.cpu_times()._asdict()  # that of guests is part of the user's
    return sum(v for k, v in found.items() if k not in ("idle", "iowait", "guest", "guest_nice"))


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    with suppress(OSError):  # on Linux: getrusage counts what the process was before it executed another program
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        import psutil

        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def return_memory() -> None:
    """Give freed memory back to the system where the C library keeps it (glibc); elsewhere nothing happens.

    A large block that is freed between two small ones that live on stays with the process, and an aligned block of the
    same size need not fit there: a loop over large images would take another hole for each.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return found


def descriptor_limit(wanted: int) -> float | None:
    """Return how many files and connections this process can have open, after raising the soft limit to ``wanted``.

    ``inf`` where there is no limit, None where the system does not tell.
    """
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return float("inf")
    wanted = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return float(soft)


def processor() -> str:
    """Return the processor's name."""
    with suppress(OSError, StopIteration), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            found = subprocess.run(asked, capture_output=True, encoding="utf-8", timeout=5, check=True).stdout
            return found.strip()
    return platform.processor() or platform.machine()
