r"""Judge images as they come, from a folder, a video or a camera: one verdict each, whatever kills the process.

SOURCE is a folder into which images are written, a video file, the address of a network camera (rtsp://…), or a camera
of this machine (/dev/video0). A file is judged when it has not changed for --settle seconds. DIR gets

    verdicts.jsonl     one JSON line for each image: id, time, path, score, scaled, verdict, regions, error …
    journal.sqlite     what has been judged, so that nothing is judged twice or lost; the next call goes on with it
    good look reject   with --move: the files, by verdict; what cannot be read goes to `unreadable`, with the reason
    drawn              with --draw: heat maps, overlays and masks

Ctrl-C ends; --once ends when all that is there has been judged. Without a threshold (`iadbe calibrate`) there
are scores and no verdicts, and nothing is moved.

--part says which images are one part (views, lights): a regular expression on names below SOURCE, or FILE.csv:COLUMN.
A part has one line, with its images, when --part-images have come, or none for --part-timeout seconds; then its files
move. Its verdict is the worst of its images, or that of the model's combination of --view's (`iadbe calibrate --part`).
A part of which images are missing is rejected or has no verdict. What cannot be read has a line of its own as well.

Verdicts can be sent elsewhere. Each is sent until it is taken, in order; its `id` tells the receiver of a second copy:

    iadbe watch incoming --model bottle.onnx --out line1 --move --csv shift1.csv
    iadbe watch incoming --model bottle.onnx --out line1 --part '^(\d+)_' --part-images 3
    iadbe watch rtsp://camera/stream --model runs/padim-… --out line1 --mqtt mqtt://broker/line1/verdicts
    iadbe watch incoming --model bottle.onnx --out line1 --webhook https://line.example/verdicts --webhook-secret-file F
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import STORE, add_trust, parse
from iadbe.errors import BadConfig

if TYPE_CHECKING:
    from iadbe.watching.watcher import Record, Status

SILENCE = 60.0  # seconds between two lines on the state where there is no terminal
OPTIONS = (
    "move", "draw", "threshold", "settle", "device", "engine", "part", "view", "part_images", "part_timeout",
)  # fmt: skip
COLOURS = {"good": "green", "look": "yellow", "reject": "red"}


def run(arguments: Sequence[str]) -> int:
    """Watch until interrupted."""
    request = parse("watch", __doc__ or "", arguments, _add, form="SOURCE --model MODEL --out DIR [options]")
    values = request.values
    for name, what in (("source", "which source? Give a folder, a video or a camera's address"),
                       ("model", "which model? Give a folder, a run's id or an exported file with --model"),
                       ("out", "where to? Give a folder with --out")):  # fmt: skip
        if not values[name]:
            raise UsageError(f"{what}.")
    from iadbe.cli.model_path import model_folder
    from iadbe.watching.watch import sinks_of, watcher_of

    source = values["source"] if "://" in values["source"] else str(system.user_path(values["source"]))
    out = system.user_path(values["out"])
    table = system.user_path(values["csv"]) if values["csv"] else ""
    sinks = sinks_of(values["webhook"], _secret(values), values["mqtt"], table)
    model = model_folder(values["model"], values["store"])
    with _display(values["json"]) as (listener, begin):
        how = {name: values[name] for name in OPTIONS}
        watcher = watcher_of(source, model, out, sinks=sinks, listener=listener, **how)
        for note in filter(None, [*request.notes, watcher.note]):
            print(f"note: {note}", file=sys.stderr)
        begin(lambda: watcher.status)
        watcher.run(values["once"])
    status = watcher.status
    print(f"{_counts(status)}; verdicts are in {out / 'verdicts.jsonl'}", file=sys.stderr)
    if status.pending:
        reasons = "".join(f"; {name}: {problem}" for name, problem in status.problems.items())
        print(f"{status.pending} verdicts are not sent yet; the same command sends them{reasons}", file=sys.stderr)
    return 1 if status.pending and values["once"] else 0


def _secret(values: dict[str, Any]) -> str:
    """Return the secret that posts are signed with, from its file."""
    file = values["webhook_secret_file"]
    if file and not values["webhook"]:
        raise UsageError("--webhook-secret-file belongs to --webhook.")
    try:
        return system.user_path(file).read_text(encoding="utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"--webhook-secret-file {file} cannot be read: {error}.") from error


Begin = Callable[[Callable[[], "Status"]], None]


@contextmanager
def _display(as_json: bool) -> Iterator[tuple[Callable[[Record], None], Begin]]:
    """Print verdicts as they are made; below them, on a terminal, the state of the watcher."""
    import time

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from iadbe.watching.placement import escaped

    status_of: list[Callable[[], Status]] = []
    console = Console(stderr=True, highlight=False)
    printed = [time.monotonic()]

    def state() -> Text:
        return Text(_state(status_of[0]()) if status_of else "", no_wrap=True, overflow="ellipsis")

    live = Live(get_renderable=state, console=console, refresh_per_second=4, transient=True)

    def show(record: Record) -> None:
        if as_json or not sys.stdout.isatty():
            print(json.dumps(record), flush=True)
        else:
            word = "unreadable" if record["error"] and "part" not in record else record["verdict"] or ""
            style = COLOURS.get(word, "bright_black")
            score = "" if record["score"] is None else f"{record['score']:.5g}"
            text = Text(f"{score:>12}  ", end="").append(f"{word:<10}  ", style)
            name = record["part"] if "part" in record else record["path"]
            console.print(text.append(escaped(f"{name}{': ' + record['error'] if record['error'] else ''}")))
        if not console.is_terminal and time.monotonic() - printed[0] > SILENCE and status_of:
            printed[0] = time.monotonic()
            console.print(_state(status_of[0]()), soft_wrap=True)

    def begin(status: Callable[[], Status]) -> None:
        status_of.append(status)

    if console.is_terminal:
        with live:
            yield show, begin
    else:
        yield show, begin


def _state(status: Status) -> str:
    parts = [_counts(status), f"{status.per_second:.2f}/s"]
    if status.judged:
        parts.append(f"{status.milliseconds:.0f} ms")
    parts += [f"{status.waiting} waiting"] if status.waiting else []
    parts += [f"{status.pending} to send"] if status.pending else []
    parts += [f"{status.dropped} frames dropped"] if status.dropped else []
    return " · ".join([*parts, *(f"{name}: {problem}" for name, problem in status.problems.items())])


def _counts(status: Status) -> str:
    found = [f"{count} {verdict or 'scored'}" for verdict, count in sorted(status.counts.items())]
    return ", ".join(found) or "nothing judged yet"


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("source", type=str, nargs="?", default="", metavar="SOURCE", help="folder, video or camera")
    parser.add_argument("--model", type=str, default="", metavar="MODEL", help="folder, run id or exported file")
    parser.add_argument("--out", type=str, default="", metavar="DIR", help="folder of verdicts and files")
    parser.add_argument("--move", action="store_true", help="move files to folders by verdict; frames too")
    parser.add_argument("--draw", action="store_true", help="write heat maps, overlays and masks")
    parser.add_argument("--once", action="store_true", help="end when all that is there has been judged")
    parser.add_argument("--settle", type=float, default=0.5, metavar="S", help="seconds without a change: complete")
    parser.add_argument("--threshold", type=float, metavar="X", help="score from which a part is rejected")
    parser.add_argument("--part", type=str, default="", metavar="RULE", help="images of one part: one verdict for them")
    parser.add_argument("--view", type=str, default="", metavar="RULE", help="views of a part, where they are combined")
    parser.add_argument("--part-images", type=int, default=0, metavar="N", help="images with which a part is complete")
    parser.add_argument(
        "--part-timeout", type=float, default=10.0, metavar="S", help="seconds without an image: a part is complete"
    )
    parser.add_argument("--csv", type=str, default="", metavar="FILE", help="append each verdict to this table")
    parser.add_argument("--webhook", type=str, default="", metavar="URL", help="post each verdict to this address")
    parser.add_argument(
        "--webhook-secret-file", type=str, default="", metavar="FILE", help="sign posts with the secret in this file"
    )
    parser.add_argument("--mqtt", type=str, default="", metavar="URL", help="publish each verdict: mqtt://HOST/TOPIC")
    parser.add_argument("--json", action="store_true", help="print verdicts as JSON lines on a terminal too")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--engine", type=str, default="torch", help="torch, onnxruntime, openvino")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
