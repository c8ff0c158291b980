"""Makes a Linux process look to iadbe's modules as if it ran on a system without POSIX. Call :func:`install` first.

Windows is the strictest: it lacks modules and names, ends a process by ``os.kill``, does not open folders, refuses to
replace or remove open files, has coarse clocks, and starts processes by ``spawn`` alone. Only iadbe sees that: the
standard library and other packages have their own branches for Windows, which do not run on Linux.
"""

import builtins
import math
import os
import sys
import types
import warnings

MODULES = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "posix", "crypt", "nis"}
WITHOUT = {
    "os": {
        *(
            "fork",
            "forkpty",
            "register_at_fork",
            "killpg",
            "setsid",
            "getsid",
            "getpgid",
            "getpgrp",
            "setpgid",
            "setpgrp",
        ),
        *(
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "setuid",
            "setgid",
            "getgroups",
            "chown",
            "lchown",
            "fchown",
            "fchmod",
        ),
        *("sched_getaffinity", "sched_setaffinity", "sched_yield", "getpriority", "setpriority", "nice", "getloadavg"),
        *("statvfs", "fstatvfs", "uname", "mkfifo", "mknod", "pipe2", "openpty", "wait", "wait3", "wait4", "waitid"),
        *("pread", "pwrite", "preadv", "pwritev", "readv", "writev", "sendfile", "fdatasync", "sync", "set_blocking"),
        *("posix_fallocate", "posix_fadvise", "posix_spawn", "lockf", "fchdir", "chroot", "confstr", "sysconf"),
        *("O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "O_SYNC", "O_DSYNC", "O_NONBLOCK", "O_NOCTTY", "O_TMPFILE"),
        *("WIFEXITED", "WIFSIGNALED", "WEXITSTATUS", "WTERMSIG", "WNOHANG", "EX_OK"),
    },
    "select": {"poll", "epoll", "kqueue"},
    "socket": {"AF_UNIX", "SO_REUSEPORT", "sendmsg", "recvmsg"},
    "time": {"clock_gettime", "tzset", "pthread_getcpuclockid"},
    "multiprocessing": {"forkserver"},
}
SIGNALS = {  # all that Windows has of the module signal
    *("SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV", "SIG_DFL", "SIG_IGN", "signal", "getsignal"),
    *(
        "raise_signal",
        "default_int_handler",
        "set_wakeup_fd",
        "strsignal",
        "valid_signals",
        "Signals",
        "Handlers",
        "NSIG",
    ),
}
TICK = 1 / 64  # seconds: the resolution of clocks


class View(types.ModuleType):
    """A module as it is on the other system; what is set is set on the real one."""

    def __init__(self, module, without, own):
        super().__getattribute__("__dict__").update(_module=module, _without=without, _own=own)

    def __getattribute__(self, name):
        inside = super().__getattribute__("__dict__")
        if name in inside["_own"]:
            return inside["_own"][name]
        if name in inside["_without"]:
            raise AttributeError(f"module {inside['_module'].__name__!r} has no attribute {name!r}")
        return getattr(inside["_module"], name)

    def __setattr__(self, name, value):
        setattr(super().__getattribute__("__dict__")["_module"], name, value)


def install():
    """Change what modules of iadbe import, in this process; and files that are open can no longer be moved."""
    import signal
    import time

    views = {"sys": View(sys, set(), {"platform": "win32"})}
    views["os"] = View(os, WITHOUT["os"], {"name": "nt", "kill": _kill, "open": _open, "symlink": _symlink})
    views["signal"] = View(signal, set(dir(signal)) - SIGNALS, {})
    clocks = {name: _coarse(getattr(time, name)) for name in ("time", "monotonic", "process_time")}
    views["time"] = View(time, WITHOUT["time"], clocks)
    whole = builtins.__import__

    def imported(name, namespace=None, local=None, fromlist=(), level=0):
        importer = str((namespace or {}).get("__name__") or "")
        if level or not (importer == "iadbe" or importer.startswith("iadbe.")):
            return whole(name, namespace, local, fromlist, level)
        top = name.partition(".")[0]
        if top in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if lacking := sorted(WITHOUT.get(top, set()) & set(fromlist or ())):
            raise ImportError(f"cannot import name {lacking[0]!r} from {name!r}")
        found = whole(name, namespace, local, fromlist, level)
        if top in WITHOUT and top not in views:
            views[top] = View(sys.modules[top], WITHOUT[top], _own(top))
        if top == "asyncio":
            loop = sys.modules["asyncio.unix_events"]._UnixSelectorEventLoop
            loop.add_signal_handler = sys.modules["asyncio.events"].AbstractEventLoop.add_signal_handler  # raises
        return views.get(name if fromlist else top, found)

    builtins.__import__ = imported
    for name in ("replace", "rename", "remove", "unlink"):
        setattr(os, name, _guarded(getattr(os, name)))
    warnings.filterwarnings("ignore", category=EncodingWarning)  # of other packages
    warnings.filterwarnings("error", category=EncodingWarning, module=r"iadbe(\.|$)")


def open_files():
    """Return the files that this process has open or mapped to memory."""
    found = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        found |= {line.split(maxsplit=5)[5].strip() for line in file if line.count("/")}
    return found


def _guarded(function):
    def guarded(path, *rest, **more):
        for one in (path, *rest[:1]):
            if isinstance(one, (str, os.PathLike)):
                folder = more.get("dir_fd") or more.get("src_dir_fd")
                whole = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder else os.getcwd(), os.fspath(one))
                whole = os.path.realpath(whole)
                held = [f for f in open_files() if f == whole or f.startswith(f"{whole}/")]
                if held := [f for f in held if not os.path.isdir(f)]:  # shutil.rmtree opens folders on Linux only
                    raise AssertionError(f"os.{function.__name__} of {one}: {held} are open in this process")
        return function(path, *rest, **more)

    guarded.__name__ = function.__name__
    return guarded


def _own(top):
    if top == "multiprocessing":
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        return {"get_context": _only_spawn, "Process": context.Process, "Queue": context.Queue}
    if top == "select":
        return {"select": _select}
    return {}


def _only_spawn(method=None):
    import multiprocessing

    if method not in (None, "spawn"):
        raise ValueError(f"cannot find context for {method!r}")
    return multiprocessing.get_context("spawn")


def _select(*given):
    import select
    import socket

    if not all(isinstance(one, socket.socket) for several in given[:3] for one in several):
        raise OSError(10038, "An operation was attempted on something that is not a socket")
    return select.select(*given)


def _kill(pid, number):
    raise AssertionError(f"os.kill({pid}, {number}) ends the process on Windows, without its handlers")


def _open(path, flags, *rest, **more):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return os.open(path, flags, *rest, **more)


def _symlink(source, target, *rest, **more):
    raise OSError(1314, "A required privilege is not held by the client", os.fspath(target))


def _coarse(clock):
    return lambda: math.floor(clock() / TICK) * TICK
