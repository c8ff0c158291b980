"""Splits docstrings into headings, text and code for the pages."""

from __future__ import annotations

import re
from typing import NamedTuple

LABELS = re.compile(r"^(Paper|Differs|Numbers|Licence|Layout):\s+", re.MULTILINE)
BULLET = re.compile(r"^\s*\* ", re.MULTILINE)
CODE = re.compile(r"``(.+?)``|:\w+:`~?(.+?)`", re.DOTALL)


class Piece(NamedTuple):
    """A piece of text or of code."""

    text: str
    is_code: bool


class Section(NamedTuple):
    """A section of a docstring. The first one has no heading."""

    heading: str
    pieces: tuple[Piece, ...]
    points: tuple[tuple[Piece, ...], ...] = ()  # of a bullet list after the pieces


def sections(doc: str) -> list[Section]:
    """Split a docstring at its labels. The first line is left out: pages show it elsewhere."""
    rest = doc.partition("\n\n")[2]
    first, *labelled = LABELS.split(rest)
    found = [("", paragraph) for paragraph in first.split("\n\n")]
    found += zip(labelled[::2], labelled[1::2], strict=True)
    return [_section(heading, text) for heading, text in found if text.strip()]


def _section(heading: str, text: str) -> Section:
    first, *points = BULLET.split(text)
    return Section(heading, pieces(first), tuple(pieces(point) for point in points))


def pieces(text: str) -> tuple[Piece, ...]:
    """Split a text into pieces of text and code, with white space normalized."""
    found = []
    at = 0
    text = " ".join(text.split())
    for code in CODE.finditer(text):
        found += [Piece(text[at : code.start()], False), Piece((code[1] or code[2]).rpartition("~")[2], True)]
        at = code.end()
    return tuple(p for p in (*found, Piece(text[at:], False)) if p.text)


def plain(text: str) -> str:
    """Return a text without code markup."""
    return "".join(piece.text for piece in pieces(text))
