"""The model that a command line names: a folder, a file, or the beginning of a run's id."""

from __future__ import annotations

from pathlib import Path

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.runtime.inspector import ENDINGS


def model_folder(text: str, store: str) -> Path:
    """Return the folder that a path, or the beginning of a run's id, means."""
    path = system.user_path(text)
    if path.exists() or path.suffix in (".ckpt", ".pt", ".pth", *ENDINGS):
        return path
    if "/" in text or "\\" in text:
        raise BadConfig(f"there is no folder {path.absolute()}. Give the folder that `iadbe train` made.")
    from iadbe.running.store import Store

    return Store(store).find(text)
