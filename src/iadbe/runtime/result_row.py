"""A scored image as a row of JSON lines or CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iadbe.runtime.parts import Part
from iadbe.runtime.regions import LISTED, Region, regions_of
from iadbe.runtime.scored_image import ScoredImage

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("path", "score", "scaled", "defective", "threshold", "error", "position_found", "verdict")


def row_of(found: ScoredImage) -> dict[str, Any]:
    """Return the columns of an image; what there is not is None."""
    score = None if math.isnan(found.score) else found.score
    return {
        "path": found.path.as_posix(), "score": score, "scaled": found.scaled, "defective": found.defective,
        "threshold": found.threshold, "error": found.error or None, "position_found": found.position_found,
        "verdict": found.verdict or None,
    }  # fmt: skip


def part_row(part: Part) -> dict[str, Any]:
    """Return the columns of a part; what there is not is None."""
    return {
        "part": part.name, "score": None if math.isnan(part.score) else part.score, "scaled": part.scaled,
        "defective": part.defective, "threshold": part.threshold, "error": part.error or None,
        "verdict": part.verdict or None, "highest": part.highest.path.as_posix(),
    }  # fmt: skip


def region_rows(found: ScoredImage, pixel_threshold: float | None) -> list[dict[str, Any]] | None:
    """Return an image's regions, those with the highest peaks first; None without maps or a threshold for pixels.

    Those that its model's rule counts, else those of the map from ``pixel_threshold`` on.
    """
    if found.regions is not None:
        some: Sequence[Region] = found.regions
    else:
        map_: np.ndarray | None = None if found.error or pixel_threshold is None else getattr(found, "map", None)
        if map_ is None or pixel_threshold is None:
            return None
        some = regions_of(map_, pixel_threshold)
    return [one.card() for one in some[:LISTED]]
