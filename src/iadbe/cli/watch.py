"""Judge each image that arrives in a folder: one JSON line an image, and with --move a folder for each verdict.

SOURCE is a folder into which images are written, with those below it. MODEL is a model's folder, a run's folder, the
beginning of a run's id, or a file that `iadbe export` wrote. A file is judged when it has not changed for some time
(--settle), so half-written ones are waited for; one that stays unreadable for ten times as long is called unreadable.

    iadbe watch incoming --model cloth.onnx --out judged --move

DIR gets verdicts.jsonl (the keys of `iadbe predict --format jsonl`, with number, image, moved_to, time and seconds) and
journal.sqlite, from which a run that was interrupted goes on: nothing is judged twice, no line and no file is lost.
With --move files go to DIR/good, DIR/look, DIR/reject, DIR/unknown (without a verdict) or DIR/unreadable (with the
reason beside it). DIR may lie below SOURCE; what is in it is not judged again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import STORE, add_trust, parse

if TYPE_CHECKING:
    from iadbe.watching.journal import Entry

FORMATS = ("table", "jsonl")


def run(arguments: Sequence[str]) -> int:
    """Watch until interrupted, or with --once until all files are judged."""
    request = parse("watch", __doc__ or "", arguments, _add, form="SOURCE --model MODEL --out DIR [options]")
    values = request.values
    for name, what in (("source", "which folder? Give the one into which images are written."),
                       ("model", "which model? Give a folder, a run's id or an exported file with --model."),
                       ("out", "where to? Give a folder for verdicts and journal with --out.")):  # fmt: skip
        if not values[name]:
            raise UsageError(what)
    if values["format"] not in FORMATS:
        raise UsageError(f"--format is one of {', '.join(FORMATS)}, not {values['format']!r}.")
    if values["settle"] < 0 or values["poll"] <= 0:
        raise UsageError("--settle takes seconds from 0 on, and --poll seconds above 0.")
    from iadbe.cli.predict import loaded, model_folder
    from iadbe.watching.watcher import Watcher

    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    source, out = system.user_path(values["source"]), system.user_path(values["out"])
    model = loaded(model_folder(values["model"], values["store"]), values)
    if model.note:
        print(f"note: {model.note}", file=sys.stderr)
    pixel = model.calibration.pixel_threshold
    how = {"move": values["move"], "settle": values["settle"], "pixel_threshold": pixel}
    with closing(Watcher(source, out, model.score, **how)) as watcher:
        try:
            while True:
                for entry in watcher.look():
                    _print(entry, values["format"])
                if values["once"] and not watcher.waiting:
                    break
                time.sleep(values["poll"])
        except KeyboardInterrupt:
            pass
        counts = ", ".join(f"{number} {verdict}" for verdict, number in watcher.journal.counts().items())
        print(f"{out}: {counts or 'nothing was judged'}; {watcher.waiting} waiting", file=sys.stderr)
    return 0


def _print(entry: Entry, form: str) -> None:
    if form == "jsonl":
        for row in entry.rows:
            print(json.dumps(row))
    else:
        scores = [row["score"] for row in entry.rows if row["score"] is not None]
        score = f"{max(scores):12.5g}" if scores else " " * 12
        seconds = entry.rows[0]["seconds"]
        print(f"{score}  {entry.verdict:<10}  {1000 * seconds:6.0f} ms  {entry.state.path}")
    sys.stdout.flush()


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, nargs="?", default="", metavar="SOURCE", help="folder to watch")
    parser.add_argument("--model", type=str, default="", metavar="MODEL", help="folder, run id or exported file")
    parser.add_argument("--out", type=str, default="", metavar="DIR", help="for verdicts, journal and moved files")
    parser.add_argument("--move", action="store_true", help="move files to the folders of their verdicts")
    parser.add_argument("--once", action="store_true", help="end when all files that are there are judged")
    parser.add_argument("--settle", type=float, default=1.0, metavar="S", help="seconds without a change: complete")
    parser.add_argument("--poll", type=float, default=0.2, metavar="S", help="seconds between two looks")
    parser.add_argument("--format", type=str, default="table", metavar="FORM", help="of what is printed: table, jsonl")
    parser.add_argument("--threshold", type=float, metavar="X", help="score from which a part is rejected")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--engine", type=str, default="torch", help="torch, onnxruntime, openvino")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
