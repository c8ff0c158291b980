"""The anomaly map of a scored image as image files: heat map, overlay, mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iadbe.files import image_io
from iadbe.report import colormap

if TYPE_CHECKING:
    from iadbe.runtime.scored_image import ScoredImage

KINDS = ("heat", "overlay", "mask")  # ends of the names of a result's images, <name>_heat.png and so on
STRIP = 256  # rows of an image that are coloured at a time


def write(result: ScoredImage, name: Path, limit: float | None) -> None:
    """Write <name>_heat.png, <name>_overlay.png and, with a limit for pixels, <name>_mask.png.

    Nothing is written of a result without a map, or without a scale to show it on.
    """
    if not result.has_map:
        return
    pixels = result.pixels()  # before the map: decoding takes most memory
    map_ = result.map
    if pixels is not None and map_ is not None:
        draw(result, map_, pixels, name, limit)


def draw(result: ScoredImage, map_: np.ndarray, pixels: np.ndarray, name: Path, limit: float | None) -> None:
    """Draw in strips of rows, so that a large image takes little more memory than its own pixels."""
    region = result.region_at(map_.shape[0], map_.shape[1])
    strips = [slice(start, start + STRIP) for start in range(0, len(map_), STRIP)]
    for kind in ("heat", "overlay"):
        painted = pixels if kind == "overlay" else pixels.copy()  # the overlay is drawn last, over the pixels
        for rows in strips:
            heat = result.heat_of(map_[rows])
            if heat is not None:
                painted[rows] = colormap.colours(heat) if kind == "heat" else colormap.overlay(pixels[rows], heat)
            if region is not None:
                painted[rows] = colormap.greyed(painted[rows], region[rows])
        image_io.write(name.with_name(f"{name.name}_{kind}.png"), painted)
    if limit is not None:
        image_io.write(name.with_name(f"{name.name}_mask.png"), (map_ >= limit).astype("uint8") * 255)
