"""The files that an exported model consists of: one, or OpenVINO's pair."""

from __future__ import annotations

import hashlib
from pathlib import Path


def parts_of(file: Path) -> list[Path]:
    """Return an exported file; of OpenVINO's pair, which is named by NAME.xml, NAME.bin as well."""
    return [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
