"""A folder into which files are written: which of its images are complete.

A file is complete when its size and time of modification have not changed for some seconds. A writer that pauses for
longer leaves a file that cannot be read; such a file is waited for :data:`PATIENCE` times as long.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from iadbe.files import image_io
from iadbe.watching.journal import FileState

PATIENCE = 10  # times the settling time that a file which cannot be read may still become readable


class HotFolder:
    """Looks at a folder and everything below it, again and again."""

    def __init__(
        self,
        root: Path,
        settle: float,
        skipped: Iterable[Path] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch ``root``.

        Args:
            root: the folder
            settle: seconds for which a complete file does not change
            skipped: folders below it that are not looked into
            clock: seconds
        """
        self.root, self.settle, self._clock = root, settle, clock
        self._skipped = {os.path.realpath(path) for path in skipped}
        self._since: dict[str, tuple[FileState, float]] = {}  # path -> its state, and since when it has it

    def look(self) -> list[FileState]:
        """Look at all files; return those that are complete, those that are complete for longest first."""
        now = self._clock()
        found: dict[str, tuple[FileState, float]] = {}
        for state in self._states():
            before = self._since.get(state.path)
            found[state.path] = before if before is not None and before[0] == state else (state, now)
        self._since = found
        times = {True: 1, False: PATIENCE}  # an empty file is about to be written
        complete = [one for one in found.values() if now - one[1] >= self.settle * times[one[0].size > 0]]
        return [state for state, _ in sorted(complete, key=lambda one: (one[1], one[0].path))]

    @property
    def files(self) -> int:
        """The number of images that were there at the last look."""
        return len(self._since)

    def is_final(self, state: FileState) -> bool:
        """Return whether a file that cannot be read has been waited for long enough."""
        before = self._since.get(state.path)
        return before is not None and before[0] == state and self._clock() - before[1] >= PATIENCE * self.settle

    def state(self, path: Path) -> FileState | None:
        """Return a file's present state; None: it is gone, or is no plain file."""
        try:
            found = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return FileState(path.relative_to(self.root).as_posix(), found.st_size, found.st_mtime_ns)

    def _states(self) -> Iterable[FileState]:
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(
                one
                for one in folders
                if not one.startswith(".") and os.path.realpath(os.path.join(folder, one)) not in self._skipped
            )
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and image_io.is_image(path) and (found := self.state(path)) is not None:
                    yield found
