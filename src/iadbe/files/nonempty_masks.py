"""Which masks mark a defect, for datasets where only the masks show whether an image is normal.

Masks must be decoded for this. The answers are cached on disk by name, size and modification time, so that a second
reading of the same folder decodes none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from iadbe import system
from iadbe.cache import cache_folder
from iadbe.files import mask_io

Entry = tuple[int, int, bool]  # size in bytes, modification time in ns, whether a pixel is marked


def nonempty_masks(root: Path, masks: Sequence[str]) -> frozenset[str]:
    """Return those of ``masks``, paths relative to ``root``, in which at least one pixel is a defect.

    Raises :class:`BadData` for a mask that cannot be read.
    """
    cache_file = cache_folder() / "labels" / f"{hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:24]}.json"
    cached = _read_cache(cache_file)
    stamps = {mask: _file_stamp(root / mask) for mask in masks}
    pending = [mask for mask in masks if cached.get(mask, (0, 0, False))[:2] != stamps[mask]]
    if pending:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
            found = readers.map(lambda mask: bool(mask_io.read_mask(root / mask).any()), pending)
            cached |= {mask: (*stamps[mask], answer) for mask, answer in zip(pending, found, strict=True)}
        _write_cache(cache_file, cached)
    return frozenset(mask for mask in masks if cached[mask][2])


def _file_stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, 0)  # reading the file raises the error
    return found.st_size, found.st_mtime_ns


def _read_cache(cache_file: Path) -> dict[str, Entry]:
    try:
        read = json.loads(cache_file.read_text(encoding="utf-8"))
        return {str(mask): (int(size), int(changed), bool(answer)) for mask, (size, changed, answer) in read.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(cache_file: Path, cached: dict[str, Entry]) -> None:
    """Write the cache atomically; where that fails, the masks are read again next time."""
    part = cache_file.with_name(f".{os.getpid()}-{cache_file.name}")
    with suppress(OSError):
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(cached), encoding="utf-8")
        system.replace(part, cache_file)
