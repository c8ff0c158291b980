"""The command line: runs a command's module and turns its outcome into an exit code.

A command is a file of this folder with ``run(arguments) -> int``; the first line of its docstring is its help.
Exit codes: 0 done, 1 the user can put it right, 2 usage, 3 a bug, 130 interrupted.
"""

from __future__ import annotations

import ast
import errno
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

from iadbe import system
from iadbe.cli import console
from iadbe.errors import IadbeError, NoSpace, did_you_mean

COMMANDS = {
    "Start here": ("demo", "doctor"),
    "Work": ("train", "test", "calibrate", "predict", "benchmark", "serve", "worker", "distil", "submit"),
    "On the line": ("export", "verify", "watch", "drift", "accept", "update"),
    "Look": ("list", "show", "data", "results", "metrics", "features"),
}
EXAMPLES = """\
  iadbe demo                                              a small real benchmark, offline, in two minutes
  iadbe train --detector patchcore --data my/good/parts   fit on a folder of good images, keep the model
  iadbe predict MODEL images/*.png --out heat           score images, write heat maps
  iadbe benchmark grid.yaml                               compare detectors; run it again to go on"""
RESUMABLE = ("demo", "train", "benchmark", "distil", "submit", "watch")  # commands that can be repeated to go on
# errors of the file system that the user can fix: no permission, no such place
SYSTEM_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)


class UsageError(IadbeError):
    """The command line is wrong: exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command == "help" and rest:
        command, rest = rest[0], ["--help"]
    console.escape_unknown_characters()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged files, whose errors are said in one sentence
    code = _run_safely(command, rest)
    console.report_escaped_characters()
    return code


def help_text() -> str:
    """Return the overview, made from the first line of each command's file; nothing is imported for it."""
    lines = ["usage: iadbe COMMAND …", "", "Which detector finds the defects in these images best?", ""]
    for group, commands in COMMANDS.items():
        lines += [f"{group}:", *(f"  {name:<11}{summary(name)}" for name in commands), ""]
    lines += ["Examples:", EXAMPLES, "", "`iadbe COMMAND --help` shows more."]
    return "\n".join(lines)


def summary(command: str) -> str:
    """Return the first line of a command's docstring."""
    tree = ast.parse((Path(__file__).parent / f"{command}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def split_arguments(
    command: str, arguments: Sequence[str], flags: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[list[str], set[str], dict[str, str]]:
    """Split the arguments of a small command into (words, flags, values of options).

    Raises :class:`UsageError` for anything that begins with a dash and is not known.
    """
    words: list[str] = []
    found: set[str] = set()
    values: dict[str, str] = {}
    rest = [*arguments]  # not list(): once imported, iadbe.cli.list is what that name means in this file
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in options:
            if not equals and not rest:
                raise UsageError(f"{name} needs a value. See `iadbe {command} --help`.")
            values[name] = value if equals else rest.pop(0)
        elif name in flags and not equals:
            found.add(name)
        elif name.startswith("-"):
            hint = did_you_mean(name, (*flags, *options))
            raise UsageError(f"iadbe {command} has no option {name}.{hint} See `iadbe {command} --help`.")
        else:
            words.append(name + equals + value)
    return words, found, values


def _run(command: str, arguments: list[str]) -> int:
    if command in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if command in ("-V", "--version", "version"):
        from iadbe import __version__

        print(f"iadbe {__version__}")
        return 0
    known = [name for group in COMMANDS.values() for name in group]
    if command not in known:
        what = f"no option {command}" if command.startswith("-") else f"no command {command!r}"
        raise UsageError(
            f"there is {what}.{did_you_mean(command, (*known, '--help', '--version'))} See `iadbe --help`."
        )
    module = import_module(f"iadbe.cli.{command}")
    if command in ("list", "show", "doctor", "features", "metrics") and {"-h", "--help"} & set(arguments):
        print(module.__doc__)
        return 0
    return int(module.run(arguments) or 0)


def _run_safely(command: str, arguments: list[str]) -> int:
    """Run a command. A user's mistake becomes one sentence, a bug a file with the traceback."""
    try:
        with _terminable():
            code = _run(command, arguments)
            sys.stdout.flush()
            return code
    except IadbeError as error:
        return _print_error(str(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        done = " Finished runs are kept; the" if command not in ("distil", "submit") else " The"
        kept = f"{done} same command goes on where it stopped." if command in RESUMABLE else ""
        return _print_error(f"interrupted.{kept}", 130)
    except BrokenPipeError:  # the reader of our output has gone, for example `head`
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:  # of the argument parser
        return end.code if isinstance(end.code, int) else 2
    except OSError as error:
        if full := NoSpace.of(error):
            return _print_error(str(full), 1)
        if error.errno in SYSTEM_REFUSALS or _is_users_file(error):
            return _print_error(f"{error.filename or 'the system'}: {(error.strerror or '').lower()}.", 1)
        return _bug(command, arguments, error)
    except Exception as error:
        if full := NoSpace.of(error):  # libraries have errors of their own for it
            return _print_error(str(full), 1)
        return _bug(command, arguments, error)


def _is_users_file(error: OSError) -> bool:
    """Return whether an error of the file system is about a file that is not one of this package."""
    name = error.filename
    return isinstance(name, str) and not Path(name).absolute().is_relative_to(Path(__file__).absolute().parents[1])


def _print_error(sentence: str, code: int) -> int:
    with suppress(BrokenPipeError, KeyboardInterrupt):
        print(f"iadbe: {sentence}", file=sys.stderr)
    return code


def _bug(command: str, arguments: list[str], error: Exception) -> int:
    """Write the traceback of a bug to a file and name it."""
    with tempfile.NamedTemporaryFile("w", prefix="iadbe-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(" ".join(["iadbe", command, *arguments]) + "\n\n" + traceback.format_exc())
    short = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return _print_error(f"this is a bug ({short}). The details are in {file.name}; please report them.", 3)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the command like Ctrl-C, so that nothing is left half written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _terminated) for number in system.ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
