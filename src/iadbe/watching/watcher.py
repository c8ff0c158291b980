"""Judges each image of a watched folder once, writes a line about it, and moves it to the folder of its verdict.

For each complete file: it is scored; verdict, rows and target are committed to the journal; its lines are appended to
``verdicts.jsonl``; it is moved; that is committed too. At the start what an interrupted run has left is completed:
lines that are missing, moves that were not made. So each file that was judged has one verdict, its lines once, and lies
in one place. A file that was being scored when the process was killed is scored again; nothing of it had been written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.files.input_images import InputImage, pages_of
from iadbe.runtime.result_row import region_rows, row_of
from iadbe.runtime.scored_image import ScoredImage
from iadbe.runtime.verdict import GOOD, LOOK, REJECT
from iadbe.watching.hot_folder import HotFolder
from iadbe.watching.journal import Entry, FileState, Journal

LINES = "verdicts.jsonl"
UNKNOWN, UNREADABLE = "unknown", "unreadable"
FOLDERS = (GOOD, LOOK, REJECT, UNKNOWN, UNREADABLE)
WORST_FIRST = (REJECT, UNKNOWN, LOOK, GOOD)
Score = Callable[[list[InputImage]], Iterable[ScoredImage]]


class Watcher:
    """Watches one folder and writes to another."""

    def __init__(
        self,
        source: Path,
        out: Path,
        score: Score,
        *,
        move: bool = False,
        settle: float = 1.0,
        pixel_threshold: float | None = None,
    ) -> None:
        """Open the journal of ``out`` and complete what an interrupted run has left.

        Args:
            source: folder into which images are written
            out: folder of the journal, of the lines and, with ``move``, of the files by verdict
            score: from images to their results, in order
            move: move each file to the folder of its verdict: good, look, reject, unknown or unreadable
            settle: seconds for which a complete file does not change
            pixel_threshold: map value from which regions are listed, of models without a rule for regions
        """
        if not source.is_dir():
            raise BadConfig(f"there is no folder {source.absolute()} to watch.")
        out.mkdir(parents=True, exist_ok=True)
        if out.samefile(source):
            raise BadConfig(f"{out} is the watched folder itself. Give another one, which may be below it, with --out.")
        if move and out.stat().st_dev != source.stat().st_dev:
            raise BadConfig(f"{out} is on another disk than {source}, so files cannot be moved there at once.")
        self.source, self.out, self._score, self._move = source, out, score, move
        self._pixel_threshold = pixel_threshold
        self._folder = HotFolder(source, settle, [out])
        self._judged: set[FileState] = set()  # files that stay where they are, so that the journal is not asked again
        self._moved = 0  # files since the last look
        self._failed: set[FileState] = set()  # files that could not be read, but may not be complete
        self.journal = Journal(out)
        self._complete_lines()
        for entry in self.journal.unmoved():
            self._finish(entry)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    @property
    def waiting(self) -> int:
        """The number of files of the last look that are not judged."""
        return self._folder.files - len(self._judged) - self._moved

    def look(self) -> Iterator[Entry]:
        """Look once; judge each complete file that is new, and yield its entry."""
        states = self._folder.look()
        self._judged &= set(states)
        self._moved = 0
        for state in states:
            if state in self._judged or (state in self._failed and not self._folder.is_final(state)):
                continue
            last = self.journal.last(state)
            if last is not None and not self._move:
                self._judged.add(state)
            elif (entry := self._judge(state)) is not None:
                yield entry

    def _judge(self, state: FileState) -> Entry | None:
        """Judge a file; None where it is gone, has changed meanwhile, or may not be complete."""
        path = self.source / state.path
        began = time.perf_counter()
        results = list(self._score(pages_of(path)))
        seconds = time.perf_counter() - began
        if self._folder.state(path) != state:
            return None
        errors = [found.error for found in results if found.error]
        if errors and not self._folder.is_final(state):
            self._failed.add(state)
            return None
        self._failed.discard(state)
        verdicts = [found.verdict or UNKNOWN for found in results]
        verdict = UNREADABLE if errors else min(verdicts, key=WORST_FIRST.index)
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows: list[dict[str, Any]] = []
        for found in results:
            more = {"regions": region_rows(found, self._pixel_threshold), "time": when, "seconds": round(seconds, 4)}
            rows.append({**row_of(found), **more})
        entry = self.journal.add(state, verdict, rows, self._target(verdict, state.path) if self._move else "")
        self._write([entry])
        self._finish(entry)
        if self._move:
            self._moved += 1
        else:
            self._judged.add(state)
        return entry

    def _target(self, verdict: str, path: str) -> str:
        """Return a place for a file that no other file has or had."""
        stem, ending = os.path.splitext(path)
        for number in range(1, 10**9):
            target = f"{verdict}/{path if number == 1 else f'{stem}_{number}{ending}'}"
            if not os.path.lexists(self.out / target) and not self.journal.is_target(target):
                return target
        raise AssertionError("there is always a free name")

    def _finish(self, entry: Entry) -> None:
        """Move an entry's file to its target, if it is not there."""
        if entry.moved:
            return
        path, target = self.source / entry.state.path, self.out / entry.target
        if not os.path.lexists(target) and self._folder.state(path) == entry.state:
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.verdict == UNREADABLE:
                reason = next(str(row["error"]) for row in entry.rows if row["error"])
                with system.replacing(target.with_name(f"{target.name}.txt")) as part:
                    part.write_text(reason + "\n", encoding="utf-8")
            system.rename(path, target)
        self.journal.mark_moved(entry.number)

    def _complete_lines(self) -> None:
        """Cut off a line that is not whole, and append those that are missing."""
        file = self.out / LINES
        number, image = 0, -1
        if file.exists():
            with file.open("r+b") as lines:
                content = lines.read()
                whole = content.rfind(b"\n") + 1
                lines.truncate(whole)
            if whole:
                try:
                    last = json.loads(content[:whole].rstrip(b"\n").rpartition(b"\n")[2])
                    number, image = int(last["number"]), int(last["image"])
                except (ValueError, LookupError, TypeError) as error:
                    raise BadConfig(f"{file} was changed, so it cannot be continued. Move it away.") from error
        self._write(self.journal.after(number - 1), number, image)

    def _write(self, entries: Iterable[Entry], number: int = 0, image: int = -1) -> None:
        """Append the lines of entries, without those up to an image of the entry ``number``."""
        with (self.out / LINES).open("ab") as lines:
            for entry in entries:
                for index, row in enumerate(entry.rows):
                    if entry.number != number or index > image:
                        more = {"number": entry.number, "image": index, "moved_to": entry.target or None}
                        lines.write(json.dumps({**more, **row}).encode() + b"\n")
