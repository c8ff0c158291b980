"""The fork server's temporary folder, and its end when its parent is killed.

The server imports torch before it serves, which takes seconds; multiprocessing lets it notice only afterwards that its
parent is gone, and leaves the folder of its socket behind. So this module, the first that the server imports, watches
the parent during the other imports, and removes the folder at the end. A folder that is left nevertheless is removed
by the next grid: its name says which process made it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iadbe import system
from iadbe.running.store import is_alive, process_start

PARENT, FOLDER = "IADBE_FORK_SERVER_PARENT", "IADBE_FORK_SERVER_FOLDER"  # what the server is told
SECONDS = 0.5  # between two looks at the parent
_imported = threading.Event()


@contextmanager
def announced() -> Iterator[None]:
    """Tell a server that is started in the ``with`` block who its parent is, and give it a folder of ours."""
    variables = {PARENT: str(os.getpid()), FOLDER: str(_folder())}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def _folder() -> Path:
    """Return the temporary folder of this process's multiprocessing, made if need be; sweep those of dead processes."""
    config: dict[str, object] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    known = config.get("tempdir")
    if known is None or f"-{os.getpid()}-" not in str(known):  # a parent's folder ends with the parent
        root = Path(tempfile.gettempdir())
        prefix = f"iadbe-{zlib.crc32(socket.gethostname().encode()) & 0xFFFF:04x}"  # short: a socket's path is limited
        for old in root.glob(f"{prefix}-*-*"):
            pid, _, start = old.name.removeprefix(f"{prefix}-").partition("-")
            if pid.isdigit() and start.isdigit() and not is_alive(int(pid), int(start)):
                system.remove_tree(old)
        made = root / f"{prefix}-{os.getpid()}-{process_start(os.getpid())}"
        made.mkdir(mode=0o700, exist_ok=True)
        atexit.register(_remove, made, os.getpid())
        config["tempdir"] = known = str(made)
    return Path(str(known))


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked from it
        system.remove_tree(folder)


def _remove_orphaned(folder: Path, parent: int, server: int) -> None:
    if os.getppid() != parent:  # a living parent goes on using it
        _remove(folder, server)


def all_imported() -> None:
    """End the watch: the server has imported everything, forks from now on, and must have no threads."""
    _imported.set()
    if _watcher is not None:
        _watcher.join()


def _watch(parent: int, folder: Path) -> None:
    while not _imported.wait(SECONDS):
        if os.getppid() != parent:
            system.remove_tree(folder)
            os._exit(1)


def _start_watch() -> threading.Thread | None:
    """Watch the parent, in a fork server; do nothing in any other process."""
    parent, folder = os.environ.pop(PARENT, ""), os.environ.pop(FOLDER, "")
    if not parent or int(parent) == os.getpid():
        return None
    atexit.register(_remove_orphaned, Path(folder), int(parent), os.getpid())
    thread = threading.Thread(target=_watch, args=(int(parent), Path(folder)), daemon=True)
    thread.start()
    return thread


_watcher = _start_watch()
