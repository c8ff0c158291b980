"""The option parser: help with options as they are typed, and one sentence for each mistake."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import jsonargparse

from iadbe.cli import UsageError
from iadbe.errors import did_you_mean
from iadbe.registry import Card, Parameter

WIDEST = 110  # columns of a line of prose
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
METAVARS = {"int": "N", "float": "X", "bool": "true|false", "str": "TEXT"}


PLURALS = {"detector": "detectors", "data": "data", "setting": "settings"}  # as options and keys of a grid


class Parser(jsonargparse.ArgumentParser):
    """A parser that raises :class:`UsageError`, and lists options that are read elsewhere in its help."""

    def __init__(self, command: str, about: str, usage: str) -> None:
        super().__init__(
            prog=f"iadbe {command}", usage=f"iadbe {command} {usage}", description=about, formatter_class=Help,
            exit_on_error=False,
        )  # fmt: skip
        self.command = command
        self.positional_defaults: dict[str, Any] = {}  # jsonargparse before 4.47, which anomalib wants, refuses them
        self.axes: tuple[str, ...] = ()  # of detector, data and setting, those whose options the command reads before
        self.shown: list[str] = []
        self.shown_groups: list[str] = []

    def add_argument(self, *names: str, **options: Any) -> Any:
        """Add an argument; the default of a positional one is kept here."""
        if names and not names[0].startswith("-") and "default" in options:
            self.positional_defaults[names[0]] = options.pop("default")
        return super().add_argument(*names, **options)

    def show(self, title: str, options: Iterable[tuple[str, str, str]]) -> None:
        """List options, (option, metavar, help), that this parser does not read itself."""
        group = self.add_argument_group(title)
        groups: Any = self._action_groups
        groups.insert(1 + len(self.shown_groups), groups.pop())  # after the positional ones
        self.shown_groups.append(title)
        for option, metavar, text in options:
            self.shown.append(option)
            group._group_actions.append(argparse._StoreAction([option], option, metavar=metavar, help=text))

    @property
    def known(self) -> list[str]:
        """The options that this parser reads itself."""
        return [option for action in self._actions for option in action.option_strings]

    def read(self, tokens: Sequence[str]) -> dict[str, Any]:
        """Parse; every mistake is one sentence."""
        known = [*self.known, *self.shown]
        for token in tokens:
            option = token.partition("=")[0]
            if re.match(r"--\w|-[a-zA-Z]", option) and option not in self.known:
                hint = self._place(option) or did_you_mean(option, known)
                raise UsageError(
                    f"iadbe {self.command} has no option {option}.{hint} See `iadbe {self.command} --help`."
                )
        try:
            parsed: dict[str, Any] = self.parse_args(list(tokens)).as_dict()
        except argparse.ArgumentError as error:
            raise self._sentence(str(error)) from error
        lacking = {k: v for k, v in self.positional_defaults.items() if parsed.get(k) is None}
        return {**parsed, **lacking}

    def _place(self, option: str) -> str:
        """Return where a category, or a parameter of a detector, data or a setting, is written; else ""."""
        axis, _, name = option.removeprefix("--").partition(".")
        axis, name = ("data", "category") if axis in ("category", "categories") else (axis, name)
        if name and axis in self.axes:
            return f" Write --{axis}.{name}."
        if not name or axis not in PLURALS or "--detectors" not in self.known:  # of the command without grids
            return ""
        value = "categories: [A, B]" if name in ("category", "categories") else f"{name}: VALUE"
        return f" A grid's file has it: {PLURALS[axis]}: [{{name: NAME, {value}}}]."

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the whole usage."""
        raise self._sentence(message) from ex

    def _sentence(self, message: str) -> UsageError:
        message = " ".join(message.split())
        wrong = re.search(r"Parser key \"([\w.]+)\": Expected a <class '(\w+)'>. Got value: (.*)", message)
        if wrong:
            name, kind, value = wrong.groups()
            option = f"--{name.replace('_', '-')}"
            message = f"{option if option in self.known else name} takes {KINDS.get(kind, kind)}, not {value!r}"
        message = message.removeprefix("error: ").rstrip(".")
        return UsageError(f"{message}. See `iadbe {self.command} --help`.")


class Help(jsonargparse.DefaultHelpFormatter):
    """Help without noise: prose is wrapped, indented blocks stay as they were written."""

    def __init__(self, prog: str, **more: Any) -> None:
        width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
        super().__init__(prog, max_help_position=30, width=max(width, 60))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = text.strip("\n").split("\n\n")
        filled = (b if b.startswith(" ") else textwrap.fill(" ".join(b.split()), width) for b in blocks)
        return textwrap.indent("\n\n".join(filled), indent)

    def _expand_help(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction):
            return "show this"
        shown = action.default not in (None, "", False, 0, argparse.SUPPRESS, []) and action.nargs not in ("?", "*")
        return f"{text} (default: {action.default})".strip() if shown else text or " "


def axis_options(axis: str, about: str, card: Card | None) -> list[tuple[str, str, str]]:
    """Return (option, metavar, help) of ``--detector`` and, of the detector that was chosen, its parameters."""
    options = [(f"--{axis}", "NAME", about)]
    if axis == "data":
        options.append(("--data.category", "A,B,…", "which categories; all of them by default"))
    for parameter in card.parameters if card else ():
        default = written(parameter.default)
        end = "" if default in ("", "null") else f"(default: {default})"
        text = " ".join(part for part in (parameter.doc, end) if part)
        options.append((f"--{axis}.{parameter.name}", _metavar(parameter), text))
    return options


def written(value: Any) -> str:
    """Write a value as one would type it."""
    if isinstance(value, (tuple, list)):
        return ",".join(written(v) for v in value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(parameter: Parameter) -> str:
    annotation = parameter.annotation.removesuffix(" | None")
    if annotation.startswith("Literal["):
        return annotation[8:-1].replace("'", "").replace('"', "").replace(", ", "|")
    inner = annotation.partition("tuple[")[2].partition(",")[0].partition("]")[0]
    if inner:
        return f"{METAVARS.get(inner, 'TEXT')},…"
    return METAVARS.get(annotation, "TEXT")
