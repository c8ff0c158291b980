"""Check data before it is used, or fetch a published dataset: `iadbe data check FOLDER`, `iadbe data get NAME`.

usage: iadbe data check NAME|FOLDER|FILE [--json]
       iadbe data get NAME [--to DIR] [--keep]

`check` reports what was found and what is wrong: counts for each category, split and kind of defect; sizes and kinds of
image; masks that are missing, empty or of another size; the same image in training and test; files that cannot be
read. Exit code 1 if there are errors.

`get` prints licence and size, fetches the archive, goes on where it was interrupted, checks it, and unpacks it safely.
Where there is no way to fetch it, it says what to do by hand; an archive that you put into DIR yourself is used.

  --to DIR    the folder to unpack into (default: datasets/NAME)
  --keep      do not remove the archive afterwards
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jsonargparse

from iadbe import registry, system
from iadbe.cli import UsageError, split_arguments
from iadbe.cli.options import add_trust, parse
from iadbe.errors import did_you_mean

COMMANDS = ("check", "get")


def run(arguments: Sequence[str]) -> int:
    """Carry out `iadbe data check` or `iadbe data get`."""
    command, rest = (arguments[0], [*arguments[1:]]) if arguments else ("", [])
    if command == "get":
        return _get(rest)
    if command == "check":
        return _check(rest)
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    hint = did_you_mean(command, COMMANDS)
    raise UsageError(f"there are `iadbe data check FOLDER` and `iadbe data get NAME`.{hint}")


def _check(rest: list[str]) -> int:
    if rest and not rest[0].startswith("-"):
        rest = ["--data", *rest]
    request = parse("data check", __doc__ or "", rest, _add, ("data",), "NAME|FOLDER|FILE [options]")
    entry = request.entry("data")
    from iadbe.cli import display
    from iadbe.data import check, resolve

    dataset = resolve.make(entry["name"], entry["params"])
    with display.counting("looking") as progress:
        report = check.check(dataset, progress)
    if request.values["json"]:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        print("\n".join([*(f"note: {note}" for note in request.notes), *report.lines()]))
    return 0 if report.ok else 1


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    add_trust(parser)


def _get(rest: list[str]) -> int:
    if {"-h", "--help"} & set(rest):
        print(__doc__)
        return 0
    words, flags, values = split_arguments("data get", rest, ("--keep",), ("--to",))
    if len(words) != 1:
        own = [name for name in registry.names("datasets") if registry.card("datasets", name).get("archives")]
        raise UsageError(f"`iadbe data get` takes one name. It can fetch {', '.join(own)}.")
    name = registry.check("datasets", words[0])
    folder = Path(values.get("--to") or Path("datasets", name)).expanduser()
    from iadbe.cli import display
    from iadbe.files import download

    with _progress_bar():
        root = download.get(name, folder, _print, keep="--keep" in flags)
    print(f"{name} is in {root}")
    print(f"\nNext: iadbe data check {name} --data.root {system.command_line([str(display.short(root))])}")
    return 0


def _print(sentence: str) -> None:
    print(sentence, flush=True)


@contextmanager
def _progress_bar() -> Iterator[None]:
    """Show a progress bar, where there is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from iadbe.progress import Report, listening

    columns = (TextColumn("{task.description}"), BarColumn(30), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(report: Report) -> None:
            if report.phase not in tasks:
                for other in tasks.values():
                    bar.update(other, visible=False)  # type: ignore[arg-type]
                tasks[report.phase] = bar.add_task(report.phase)
            bar.update(tasks[report.phase], completed=report.done, total=report.total or None)  # type: ignore[arg-type]

        with listening(show):
            yield
