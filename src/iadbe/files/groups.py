r"""Groups of dependent images (of one part, lot or recording), from their names or from a CSV file.

A rule is a regular expression on the path below the root (``lot(\d+)``: what its parentheses match, else the whole
match), or ``FILE.csv:COLUMN`` with the column of the groups; the first other column holds the paths or names.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path

from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.files import layout

_TABLE = re.compile(r"(?P<file>.+\.csv):(?P<column>.+)", re.IGNORECASE)


def groups_of(root: Path, rule: str, paths: Iterable[str], owner: str) -> dict[str, str]:
    """Return path -> group by a rule; an empty rule, or an empty group, leaves a path out.

    Raises :class:`BadConfig` for a wrong rule, :class:`BadData` for a table that cannot be used or a path that the rule
    does not cover; ``owner`` is the parameter's name in the message.
    """
    if not rule:
        return {}
    paths = tuple(paths)
    table = _TABLE.fullmatch(rule)
    found = _from_table(root / table["file"], table["column"], paths) if table else _from_names(rule, paths, owner)
    if missing := [path for path in paths if path not in found]:
        where = f"{root / table['file']} lists" if table else f"{owner} {rule!r} matches"
        raise BadData(
            f"{where} {len(paths) - len(missing)} of {len(paths)} images, but not {missing[0]}. Every image needs a "
            "group; an empty one makes the image a group of its own."
        )
    return {path: group for path, group in found.items() if group}


def in_groups_of(train: Iterable[str], tested: Iterable[str], groups: Mapping[str, str]) -> set[str]:
    """Return the training paths that share a group with a tested path."""
    used = {groups[path] for path in tested if path in groups}
    return {path for path in train if groups.get(path) in used}


def _from_names(rule: str, paths: Iterable[str], owner: str) -> dict[str, str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise BadConfig(f"{owner} {rule!r} is not a regular expression: {error}.") from error
    found = {}
    for path in paths:
        if match := pattern.search(path):
            found[path] = "/".join(part for part in match.groups() if part) if match.groups() else match[0]
    return found


def _from_table(file: Path, column: str, paths: Iterable[str]) -> dict[str, str]:
    try:
        columns, *lines = layout.read_table(file) or [[]]
    except (OSError, csv.Error) as error:
        raise BadData(f"{file} cannot be read as a table of groups: {error}.") from error
    rows = [dict(zip_longest(columns, line[: len(columns)], fillvalue="")) for line in lines if line]
    if column not in columns or len(columns) < 2:
        hint = did_you_mean(column, columns)
        raise BadData(f"{file} has no column {column!r} beside one of paths.{hint} It has: {', '.join(columns)}.")
    key = next(name for name in columns if name != column)
    listed = {}
    for row in rows:
        listed[str(row[key]).strip().replace("\\", "/").removeprefix("./")] = str(row[column] or "").strip()
    names = {path: path.rpartition("/")[2] for path in paths}
    return {path: listed[k] for path, name in names.items() for k in (name, path) if k in listed}
