"""Docstrings as people read them on a page: their parts under headings, code as code."""

from __future__ import annotations

import re
from typing import NamedTuple

LABELS = re.compile(r"^(Paper|Differs|Numbers|Licence|Layout): ", re.MULTILINE)
CODE = re.compile(r"``(.+?)``|:\w+:`~?(.+?)`", re.DOTALL)


class Piece(NamedTuple):
    """Some words, or a piece of code."""

    text: str
    is_code: bool


class Part(NamedTuple):
    """What stands under one heading; the beginning has none."""

    heading: str
    pieces: tuple[Piece, ...]


def parts(doc: str) -> list[Part]:
    """Split a docstring at its labels; the first sentence, which pages show elsewhere, is left out."""
    rest = doc.partition("\n\n")[2]
    first, *labelled = LABELS.split(rest)
    found = [("", paragraph) for paragraph in first.split("\n\n")]
    found += zip(labelled[::2], labelled[1::2], strict=True)
    return [Part(heading, pieces(text)) for heading, text in found if text.strip()]


def pieces(text: str) -> tuple[Piece, ...]:
    """Return words and code in turn, on one line."""
    found = []
    at = 0
    text = " ".join(text.split())
    for code in CODE.finditer(text):
        found += [Piece(text[at : code.start()], False), Piece((code[1] or code[2]).rpartition("~")[2], True)]
        at = code.end()
    return tuple(p for p in (*found, Piece(text[at:], False)) if p.text)


def plain(text: str) -> str:
    """Return a text without the marks of code."""
    return "".join(piece.text for piece in pieces(text))
