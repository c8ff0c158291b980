"""The folder for cached files, which can be computed or downloaded again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$IADBE_CACHE``, or ``iadbe`` in the user's cache."""
    if own := os.environ.get("IADBE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "iadbe"
