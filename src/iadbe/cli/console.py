"""Characters that a console's encoding lacks: typographic ones are spelt plainly, others escaped and reported."""

from __future__ import annotations

import codecs
import sys
from contextlib import suppress

PLAIN = {"—": "-", "–": "-", "−": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<=", "→": "->", "·": ".", "“": '"'}
PLAIN |= {"”": '"', "’": "'", "‘": "'", "±": "+-", "²": "^2", "³": "^3", "¹": "^1", "Δ": "delta ", "α": "alpha"}
ERRORS = "iadbe-console"
_escaped: set[str] = set()  # characters that the encoding lacked


def escape_unknown_characters() -> None:
    """Let standard output and error escape what their encoding lacks, instead of failing or losing it."""
    codecs.register_error(ERRORS, _spelt)
    _escaped.clear()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def report_escaped_characters() -> None:
    """Print a note if characters were escaped, for example in file names."""
    if _escaped:
        with suppress(OSError, ValueError, KeyboardInterrupt):
            print(
                f"note: this console ({sys.stdout.encoding}) cannot show some characters and escapes them. "
                "Files are always written in UTF-8 (--out FILE.csv of predict, export FILE of results).",
                file=sys.stderr,
            )
    _escaped.clear()


def _spelt(error: UnicodeError) -> tuple[str | bytes, int]:
    """Spell the characters that could not be encoded, as an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    if any(character not in PLAIN for character in lacking):
        _escaped.update(lacking)
    escaped = (PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in lacking)
    return "".join(escaped), error.end
