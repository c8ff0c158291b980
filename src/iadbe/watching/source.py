"""What is watched: something that gives images as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from iadbe.files.input_images import InputImage


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to judge: an image file, which may have several pages, or a frame."""

    name: str  # of the file below the watched folder, with slashes, or of the one that a frame is kept in
    key: str  # the same for the same content, so that nothing is judged twice
    images: Sequence[InputImage]
    path: Path | None = None  # of the file, which may be moved; None for a frame
    is_fresh: bool = False  # it may still be written to: where it cannot be decoded, it is looked at again


class Source(Protocol):
    """Gives items; ``waiting`` is the number of those that are not complete yet, or wait behind them."""

    waiting: int
    is_over: bool  # there will be no more

    def ready(self, knows: Callable[[str], bool]) -> list[Item]:
        """Return what can be judged now and is not known, the oldest first."""
        ...

    def path_of(self, key: str) -> Path | None:
        """Return the file that has this key, if it is still there."""
        ...
