"""A folder into which a camera or another program writes images.

A file is complete when its size and time have not changed for half a second. Where it cannot be decoded then, it is
looked at again for some seconds, because some programs pause while they write. An empty file is waited for for longer.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from iadbe.errors import BadConfig
from iadbe.files import image_io
from iadbe.files.input_images import pages_of
from iadbe.watching.source import Item

HEX = "/hex/"  # begins the key of a file whose name is no text; names below a folder never begin with a slash
SETTLE_SECONDS, PATIENCE_SECONDS = 0.5, 5.0
EMPTY_SECONDS = 30.0  # for which an empty file is waited for


class HotFolder:
    """The complete image files of a folder and those below it, the oldest first."""

    is_over = False  # there may always be more

    def __init__(
        self,
        folder: Path,
        without: Collection[Path] = (),
        settle: float = SETTLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch a folder.

        Args:
            folder: where images appear
            without: folders below it that are not looked into, such as those of the results
            settle: seconds without a change after which a file is complete
            clock: of seconds, for tests
        """
        if not folder.is_dir():
            raise BadConfig(f"there is no folder {folder}. Make it first, or give a video or the address of a camera.")
        self.folder = folder
        self._without = [path.absolute() for path in without]
        self._settle = settle
        self._clock = clock
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}  # size and time, and since when
        self._known: set[str] = set()  # keys of files that stay here, so that the journal is not asked again
        self.waiting = 0  # files that are not complete yet

    def ready(self, knows: Callable[[str], bool]) -> list[Item]:
        """Return the complete files whose keys are not known."""
        now = self._clock()
        seen: dict[Path, tuple[tuple[int, int], float]] = {}
        found: list[tuple[int, Item]] = []
        known: set[str] = set()
        self.waiting = 0
        for path, state in self._files():
            before, since = self._seen.get(path, (None, now))
            since = since if state == before else now
            seen[path] = (state, since)
            key = _key(path.relative_to(self.folder).as_posix(), state)
            if key in self._known or knows(key):
                known.add(key)
                continue
            if now - since >= (self._settle if state[0] else max(self._settle, EMPTY_SECONDS)):
                is_fresh = now - since < PATIENCE_SECONDS
                name = path.relative_to(self.folder).as_posix()
                found.append((state[1], Item(name, key, pages_of(path), path, is_fresh)))
            else:
                self.waiting += 1
        self._seen, self._known = seen, known
        return [item for _, item in sorted(found, key=lambda pair: (pair[0], pair[1].key))]

    def path_of(self, key: str) -> Path | None:
        """Return the file with this key; None where it has been moved, changed or removed."""
        name = _name_of(key)
        path = self.folder / name
        state = _state(path)
        return path if state is not None and _key(name, state) == key else None

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        """Yield the images, with size and time in nanoseconds; what vanishes meanwhile is left out."""
        for folder, folders, names in _walk(self.folder):
            folders[:] = [name for name in folders if (folder / name).absolute() not in self._without]
            for name in names:
                path = folder / name
                if not image_io.is_image(path):
                    continue
                state = _state(path)
                if state is not None:
                    yield path, state


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file in nanoseconds; None where it is gone, or a link, which could lead anywhere."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _key(name: str, state: tuple[int, int]) -> str:
    """Return a text that is one for a name, size and time. A name that is no text, or has lines, is in hex."""
    if "\n" in name or not name.isprintable():
        name = HEX + os.fsencode(name).hex()
    return f"{name}\n{state[0]}\n{state[1]}"


def _name_of(key: str) -> str:
    name = key.partition("\n")[0]
    return os.fsdecode(bytes.fromhex(name.removeprefix(HEX))) if name.startswith(HEX) else name


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield folders with the names in them, which are not hidden, sorted."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), folders, sorted(names)
