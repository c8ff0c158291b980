"""Labels that cannot be used: one error names all of them, or by choice their images are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from iadbe.errors import BadConfig, BadData

Rule = Literal["error", "drop"]
MOST = 100  # places that a message names
REASONS = 10  # different ones that it holds
_PLACE = re.compile(r"(?P<file>.+?)(?P<place>, (?:line \d+|entry \d+ of \w+)(?: \(.*?\))?)(?P<reason>:? .*)", re.DOTALL)


class BadLabels:
    """Collects the errors of label files and lines.

    Args:
        rule: error, or drop
        owner: the parameter that holds the rule, such as ``yolo.bad_labels``
    """

    def __init__(self, rule: str, owner: str) -> None:
        if rule not in get_args(Rule):
            raise BadConfig(f"{owner} is {rule!r}, not one of {', '.join(get_args(Rule))}.")
        self.rule = rule
        self._sentences: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect the :class:`BadData` of one label; what follows it in the block is left out."""
        try:
            yield
        except BadData as error:
            self._sentences.append(str(error))

    def check(self, what: str = "labels") -> None:
        """Raise :class:`BadData` that names all labels that cannot be used, unless their images may be left out."""
        wrong, self._sentences = self._sentences, []
        if not wrong or self.rule == "drop":
            return
        count = f"{len(wrong)} {what} cannot be read: " if len(wrong) > 1 else ""
        raise BadData(f"{count}{' '.join(_grouped(wrong))} Leave their images out with --data.bad_labels drop.")


def _grouped(sentences: list[str]) -> list[str]:
    """Return sentences, those of one reason as one with all their places."""
    places: dict[str, list[tuple[str, str]]] = {}  # by reason: file, and the place in it
    for sentence in sentences:
        match = _PLACE.fullmatch(sentence)
        file, place, reason = match.group("file", "place", "reason") if match else ("", "", sentence)
        places.setdefault(reason, []).append((file, place))
    common = _common_folder({file for some in places.values() for file, _ in some if file})
    found, left = [], MOST
    for reason, some in list(places.items())[:REASONS]:
        shown = ["".join(some[0]), *(_short(file, place, common) for file, place in some[1:left])]
        more = f" and {len(some) - len(shown)} more" if len(some) > len(shown) else ""
        found.append(f"{'; '.join(filter(None, shown))}{more}{reason}")
        left = max(1, left - len(shown))
    rest = [pair for some in list(places.values())[REASONS:] for pair in some]
    listed = [_short(file, place, common) for file, place in rest if place][:left]
    if not listed:
        return [*found, f"And {len(rest)} more."] if rest else found
    more = f" and {len(rest) - len(listed)} more" if len(rest) > len(listed) else ""
    return [*found, f"And: {'; '.join(listed)}{more}."]


def _common_folder(files: set[str]) -> str | None:
    """Return the folder above the one that holds all files; "" where there is none, None for a single file."""
    if len(files) < 2:
        return None
    try:
        return os.path.dirname(os.path.commonpath([os.path.dirname(file) for file in files]))
    except ValueError:  # Windows: they are on several drives
        return ""


def _short(file: str, place: str, folder: str | None) -> str:
    """Return a place with its file below a folder, or without the file where there is but one."""
    if folder is None:
        return place.removeprefix(", ")
    return file.removeprefix(folder).lstrip("/\\") + place
