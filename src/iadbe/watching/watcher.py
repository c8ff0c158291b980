"""Judges images as they come: one verdict each, whatever kills the process."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig, IadbeError
from iadbe.files import image_io
from iadbe.files.input_images import InputImage
from iadbe.monitoring.monitor import Monitor
from iadbe.runtime.result_row import part_row, region_rows, row_of
from iadbe.runtime.scored_image import ScoredImage
from iadbe.runtime.verdict import GOOD, LOOK, REJECT, UNKNOWN
from iadbe.watching import placement, verdict_log
from iadbe.watching.delivery import Delivery, Sink
from iadbe.watching.journal import Entry, Journal
from iadbe.watching.open_parts import OpenParts, PartRule, row_of_part, verdict_on
from iadbe.watching.source import Item, Source
from iadbe.watching.verdict_log import VerdictLog

POLL_SECONDS = 0.1  # between two looks at a source without images
MAX_PENDING = 10_000  # verdicts that sinks have not taken: then no more images are judged until they do
DRAWN = "drawn"  # folder of overlays and masks
RANKS = (UNKNOWN, GOOD, LOOK, REJECT, placement.UNREADABLE)  # of several pages the worst counts
Score = Callable[[InputImage], ScoredImage]
Draw = Callable[[ScoredImage, Path], None]  # writes images of a result to files whose names begin so
Record = dict[str, Any]  # a verdict, as its JSON line has it


@dataclass(slots=True)
class Status:
    """What a display shows."""

    counts: dict[str, int] = field(default_factory=dict)  # verdicts, those of earlier calls included
    judged: int = 0  # by this call
    began: float = field(default_factory=time.monotonic)
    milliseconds: float = math.nan  # that the last image took
    waiting: int = 0  # images that are not complete, or wait
    pending: int = 0  # verdicts that sinks have not taken
    dropped: int = 0  # frames of a camera
    problems: Mapping[str, str] = field(default_factory=dict)  # by sink, or "camera", or "drift"

    @property
    def per_second(self) -> float:
        """Return the images that were judged in a second, on average since the beginning."""
        return self.judged / max(time.monotonic() - self.began, 1e-9)


class Watcher:
    """Watches one source and writes to one folder: verdicts on images or parts, the journal, files by verdict."""

    def __init__(
        self, source: Source, score: Score, out: Path, *, move: bool = False, sinks: Sequence[Sink] = (),
        draw: Draw | None = None, pixel_threshold: float | None = None,
        listener: Callable[[Record], None] | None = None, note: str = "",
        parts: PartRule | None = None, monitor: Monitor | None = None,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            source: where images come from
            score: a model; an image that cannot be scored gives a result with an error
            out: folder of the journal, the log and the files
            move: move each file to the folder of its verdict; frames are written there
            sinks: where verdicts are sent
            draw: writes overlays and masks
            pixel_threshold: map value from which regions are listed, of models without a rule for regions
            listener: is given every new verdict
            note: what a user should know of the model
            parts: which images are one part, with one verdict; None: each image is judged by itself
            monitor: that counts images for `iadbe drift`, and writes what is left in the end
        """
        self.note = note
        self.status = Status()
        self._source, self._score, self._out = source, score, out
        self._is_moving, self._draw = move, draw
        self._listener = listener or (lambda record: None)
        self._sinks = list(sinks)
        self._pixel_threshold = pixel_threshold
        self._parts = None if parts is None else OpenParts(parts)
        self._monitor = monitor

    def run(self, once: bool = False, seconds_to_deliver: float = 5.0) -> Status:
        """Judge until Ctrl-C; with ``once``, until the source has no more and the sinks have all.

        Raises :class:`iadbe.errors.BadConfig` where another process writes to the folder.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        with self._opened() as (journal, log):
            self._recover(journal, log)
            threads = [Delivery(sink, journal) for sink in self._sinks]
            for thread in threads:
                thread.start()
            try:
                while self._round(journal, log, threads) or not self._is_empty(journal, log, once):
                    pass
            except KeyboardInterrupt:
                if once:
                    raise
            finally:
                if self._monitor is not None:
                    self._monitor.flush()
                for thread in threads:
                    thread.stop(seconds_to_deliver)
                self._measure(journal, threads)
        return self.status

    @contextmanager
    def _opened(self) -> Iterator[tuple[Journal, VerdictLog]]:
        journal = Journal(self._out)
        try:
            log = VerdictLog(self._out / verdict_log.FILE, journal.log_end())
            try:
                yield journal, log
            finally:
                log.close()
        finally:
            journal.close()

    def _recover(self, journal: Journal, log: VerdictLog) -> None:
        """Finish what was recorded and not finished."""
        for entry in journal.unfinished():
            self._finish(entry, journal, log)
        self.status.counts = journal.counts(self._parts is not None)
        kept = journal.open_parts()
        if self._parts is not None:
            self._parts.load(kept)
        elif kept:
            raise BadConfig(f"{self._out} has parts of which images are awaited: give --part again, or another --out.")

    def _round(self, journal: Journal, log: VerdictLog, threads: Sequence[Delivery]) -> bool:
        """Judge what is ready; return whether there was anything."""
        self._measure(journal, threads)
        if self.status.pending >= MAX_PENDING:
            time.sleep(POLL_SECONDS)
            return True
        items, judged = self._source.ready(journal.knows), 0
        for left, item in zip(range(len(items), 0, -1), items, strict=True):
            self.status.waiting = self._source.waiting + left
            judged += self._judge(item, journal, log)
        self._close_parts(journal, log)
        self._measure(journal, threads)
        return judged > 0

    def _is_empty(self, journal: Journal, log: VerdictLog, once: bool) -> bool:
        """Return whether to end; else wait for a moment."""
        is_over = self._source.is_over or (once and not self._source.waiting)
        if is_over:
            self._close_parts(journal, log, all_of_them=True)
        if is_over and not (once and journal.pending()):
            return True
        time.sleep(POLL_SECONDS)
        return False

    def _judge(self, item: Item, journal: Journal, log: VerdictLog) -> bool:
        """Judge an item, if it is ready."""
        began = time.perf_counter()
        results = [self._scored(image) for image in item.images]
        milliseconds = 1e3 * (time.perf_counter() - began)
        if item.path is not None and self._source.path_of(item.key) is None:
            return False  # it has been changed or taken away meanwhile
        if item.is_fresh and any(found.error for found in results):
            self._source.waiting += 1
            return False
        verdicts = [placement.UNREADABLE if found.error else found.verdict for found in results]
        verdict = max(verdicts, key=RANKS.index)
        of_part = self._parts is not None and verdict != placement.UNREADABLE
        target = None if of_part else self._target_of(item, verdict)
        drawn = [self._drawn(found, item, target) for found in results]
        if target is not None and item.path is None:
            _write_frame(item, target)
        each = milliseconds / len(results)
        rows = [
            record_of(one, each, target, name, self._pixel_threshold) for one, name in zip(results, drawn, strict=True)
        ]
        place = target.relative_to(self._out).as_posix() if target is not None else ""
        self._record(item, verdict, results, [] if of_part else rows, place, rows, journal, log)
        self.status.judged += 1
        self.status.milliseconds = milliseconds
        return True

    def _record(
        self, item: Item, verdict: str, results: Sequence[ScoredImage], own_lines: list[Record], place: str,
        rows: list[Record], journal: Journal, log: VerdictLog,
    ) -> None:  # fmt: skip
        """Write a judged image down; ``own_lines``: the rows that are lines of their own."""
        lines, sinks = [_line(row) for row in own_lines], [sink.name for sink in self._sinks]
        if self._parts is None:
            entry = journal.record(item.key, verdict, lines, place, sinks)
            self._count(verdict)
        else:
            part, note = self._parts.rule.name_of(item.name)
            member = self._parts.member_of(item.name, results, rows)
            member.is_placed = bool(place)
            entry = journal.record(item.key, verdict, lines, place, sinks, (part, member.body()))
            member.number = entry.id
            self._parts.add(part, member, note)
        self._finish(entry, journal, log)
        for row in own_lines:
            self._listener(row)

    def _close_parts(self, journal: Journal, log: VerdictLog, all_of_them: bool = False) -> None:
        """Give the verdicts on the parts that are complete."""
        parts = self._parts
        if parts is None:
            return
        for name in parts.complete(all_of_them):
            found, open_part = parts.take(name)
            verdict, error = verdict_on(found, open_part.notes, parts.rule.images)
            targets: dict[int, str] = {}
            for member in open_part.members:
                targets[member.number] = ""
                if self._is_moving and verdict and not member.is_placed:
                    target = placement.target_of(member.name, verdict, self._out)
                    targets[member.number] = target.relative_to(self._out).as_posix()
                    for row in member.rows:
                        row["moved_to"] = target.as_posix()
            rows = [row for member in open_part.members for row in member.rows]
            row = {**_identity(), **row_of_part(part_row(found), verdict, error, rows)}
            journal.close_part(name, verdict, _line(row), [sink.name for sink in self._sinks], targets)
            for entry in journal.unfinished():
                self._finish(entry, journal, log)
            self._count(verdict)
            self._listener(row)

    def _count(self, verdict: str) -> None:
        self.status.counts[verdict] = self.status.counts.get(verdict, 0) + 1

    def _target_of(self, item: Item, verdict: str) -> Path | None:
        """Return where an item's file goes to; None: it stays. A frame's name is its own, after a kill the same."""
        if not self._is_moving or not verdict:
            return None
        if item.path is None:
            return self._out / verdict / item.name
        return placement.target_of(item.name, verdict, self._out)

    def _drawn(self, found: ScoredImage, item: Item, target: Path | None) -> Path | None:
        """Draw a result; return how the names of its images begin, or None where there is nothing to draw."""
        if self._draw is None or found.error:
            return None
        stem = target.stem if target is not None else Path(item.name).stem
        stem = "_".join(filter(None, [stem, found.path.name.partition("#")[2]]))
        name = placement.free_prefix(self._out / DRAWN, stem)
        self._draw(found, name)
        return name

    def _finish(self, entry: Entry, journal: Journal, log: VerdictLog) -> None:
        """Write a recorded image's lines and move its file, as far as that has not been done."""
        if entry.log_end is None:
            journal.wrote(entry, log.append(entry.lines))
        source = self._source.path_of(entry.key) if entry.target else None
        if source is not None:
            target = self._out / entry.target
            placement.move(source, target)
            if entry.verdict == placement.UNREADABLE:
                reason = json.loads(entry.lines[0])["error"] or ""
                with system.replacing(target.with_name(f"{target.name}.txt")) as part:
                    part.write_text(f"{reason}\n", encoding="utf-8")
        journal.finish(entry)

    def _scored(self, image: InputImage) -> ScoredImage:
        try:
            return self._score(image)
        except (IadbeError, OSError) as error:
            return ScoredImage(image.path, math.nan, error=str(error), source=image)

    def _measure(self, journal: Journal, threads: Sequence[Delivery]) -> None:
        self.status.waiting = self._source.waiting
        self.status.pending = journal.pending() if threads else 0
        self.status.dropped = getattr(self._source, "dropped", 0)
        problems = {thread.name: thread.problem for thread in threads if thread.problem}
        if camera := getattr(self._source, "problem", ""):
            problems["camera"] = camera
        if self._monitor is not None and self._monitor.problem:
            problems["drift"] = self._monitor.problem
        self.status.problems = problems


def record_of(
    found: ScoredImage,
    milliseconds: float,
    target: Path | None = None,
    drawn: Path | None = None,
    pixel_threshold: float | None = None,
) -> Record:
    """Return a verdict as values that JSON has."""
    return {
        **_identity(),
        **row_of(found),
        "regions": region_rows(found, pixel_threshold),
        "moved_to": None if target is None else target.as_posix(),
        "drawn": None if drawn is None else drawn.as_posix(),
        "milliseconds": round(milliseconds, 2),
    }


def _identity() -> Record:
    return {"id": uuid.uuid4().hex, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}


def _line(row: Record) -> str:
    """Return a row as JSON. A file's name that is no text keeps its bytes as escapes, as JSON has them."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _write_frame(item: Item, target: Path) -> None:
    """Write the pixels of a frame; one that was written before a kill is written again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pixels, _ = item.images[0].read(None)
    with system.replacing(target) as part:
        image_io.write(part, pixels)
