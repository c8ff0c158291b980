"""Where the files of judged images go: a folder for each verdict."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

from iadbe import system
from iadbe.report.map_images import KINDS

UNREADABLE = "unreadable"


def target_of(name: str, verdict: str, out: Path) -> Path:
    """Return a free name for a file in the folder of its verdict, of printable characters."""
    name = _printable(name)
    folder = (out / verdict / name).parent
    stem, suffix = Path(name).stem, Path(name).suffix
    names = (folder / (f"{stem}{suffix}" if n == 1 else f"{stem}_{n}{suffix}") for n in count(1))
    return next(path for path in names if not path.exists())


def free_prefix(folder: Path, stem: str) -> Path:
    """Return a path in a folder with which no name of a drawn result's images begins yet."""
    stem = _printable(stem)
    names = (stem if n == 1 else f"{stem}_{n}" for n in count(1))
    return next(folder / name for name in names if not any((folder / f"{name}_{kind}.png").exists() for kind in KINDS))


def move(source: Path, target: Path) -> None:
    """Move a file; one that has been moved already is left alone. A target on another disk is written whole first."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        system.rename(source, target)
    except OSError:  # another disk
        with system.replacing(target) as part:
            shutil.copy2(source, part)
        system.remove(source)


def _printable(name: str) -> str:
    """Replace bytes that are no text, line ends and control characters."""
    return "".join(c if c.isprintable() else "_" for c in name)


def escaped(text: str) -> str:
    """Return a text for a table or a terminal: one line, with escapes for what is not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
