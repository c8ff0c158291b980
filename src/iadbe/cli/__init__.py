"""The command line: finds the command's file, runs it, and turns every end into an exit code.

A command is a file of this folder with ``run(arguments) -> int``; the first line of its docstring is its help.
Exit codes: 0 done, 1 the user can put it right, 2 usage, 3 a bug, 130 interrupted.
"""

from __future__ import annotations

import ast
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from iadbe.errors import IadbeError, did_you_mean

COMMANDS = {
    "Start here": ("demo", "doctor"),
    "Work": ("train", "test", "predict", "benchmark", "worker"),
    "Look": ("list", "show", "data", "results", "features"),
}
EXAMPLES = """\
  iadbe demo                                              a small real benchmark, offline, in two minutes
  iadbe train --detector patchcore --data my/good/parts   fit on a folder of good pictures, keep the model
  iadbe predict MODEL pictures/*.png --out heat           score pictures, write heat maps
  iadbe benchmark grid.yaml                               compare detectors; run it again to go on"""


class Usage(IadbeError):
    """The command line itself is wrong: exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if command in ("-V", "--version", "version"):
        from iadbe import __version__

        print(f"iadbe {__version__}")
        return 0
    known = [name for group in COMMANDS.values() for name in group]
    if command not in known:
        print(f"iadbe: there is no command {command!r}.{did_you_mean(command, known)} See `iadbe --help`.", file=sys.stderr)
        return 2
    return _guarded(command, rest)


def help_text() -> str:
    """Return the overview, made from the first line of each command's file; nothing is imported for it."""
    lines = ["usage: iadbe COMMAND …", "", "Which detector finds the defects in these pictures best?", ""]
    for group, commands in COMMANDS.items():
        lines += [f"{group}:", *(f"  {name:<11}{summary(name)}" for name in commands), ""]
    lines += ["Examples:", EXAMPLES, "", "`iadbe COMMAND --help` tells more."]
    return "\n".join(lines)


def summary(command: str) -> str:
    """Return the first line of a command's docstring."""
    tree = ast.parse((Path(__file__).parent / f"{command}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _guarded(command: str, arguments: list[str]) -> int:
    """Run a command; a user's mistake is one sentence, a bug is a file with the traceback."""
    from_terminal = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(import_module(f"iadbe.cli.{command}").run(arguments) or 0)
    except IadbeError as error:
        print(f"iadbe: {error}", file=sys.stderr)
        return 2 if isinstance(error, Usage) else 1
    except KeyboardInterrupt:
        print("iadbe: interrupted. Finished runs are kept; the same command goes on where it stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, for example `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:  # of the argument parser
        return end.code if isinstance(end.code, int) else 2
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="iadbe-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(" ".join(["iadbe", command, *arguments]) + "\n\n" + traceback.format_exc())
        short = f"{type(error).__name__}: {error}"
        print(f"iadbe: this is a bug ({short}). The details are in {file.name}; please report them.", file=sys.stderr)
        return 3
    finally:
        signal.signal(signal.SIGTERM, from_terminal)


def _terminated(*_: object) -> None:
    """End on SIGTERM as on Ctrl-C, so that nothing is left half done."""
    raise KeyboardInterrupt
