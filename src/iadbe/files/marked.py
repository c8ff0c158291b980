"""Tells which masks mark anything, for data in which nothing else says whether an image is good.

Masks must be decoded for it. What they say is kept in the user's cache, by name, size and time of change, so that the
next look at the same folder reads none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from iadbe.cache import cache_folder
from iadbe.files import image_io

Entry = tuple[int, int, bool]  # size in bytes, time of change in ns, whether anything is marked


def marked(root: Path, masks: Sequence[str]) -> frozenset[str]:
    """Return those of ``masks``, paths relative to ``root``, in which at least one pixel is a defect.

    Raises :class:`BadData` for a mask that cannot be read.
    """
    notes = cache_folder() / "labels" / f"{hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:24]}.json"
    known = _known(notes)
    stamps = {mask: _stamp(root / mask) for mask in masks}
    unknown = [mask for mask in masks if known.get(mask, (0, 0, False))[:2] != stamps[mask]]
    if unknown:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            found = readers.map(lambda mask: bool(image_io.read_mask(root / mask).any()), unknown)
            known |= {mask: (*stamps[mask], answer) for mask, answer in zip(unknown, found, strict=True)}
        _keep(notes, known)
    return frozenset(mask for mask in masks if known[mask][2])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, 0)  # reading it will tell what is wrong
    return found.st_size, found.st_mtime_ns


def _known(notes: Path) -> dict[str, Entry]:
    try:
        read = json.loads(notes.read_text(encoding="utf-8"))
        return {str(mask): (int(size), int(changed), bool(answer)) for mask, (size, changed, answer) in read.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep(notes: Path, known: dict[str, Entry]) -> None:
    """Write the notes whole or not at all; where there is no room, the masks are read again next time."""
    part = notes.with_name(f".{os.getpid()}-{notes.name}")
    with suppress(OSError):
        notes.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(notes)
