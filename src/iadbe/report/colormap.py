"""The heat map's colours: a grey map becomes heat, heat is overlaid on the image, a mask becomes an outline.

The colour map runs from black through violet and orange to pale yellow with evenly rising lightness, so higher values
look higher to everyone, in print as well. Images and colours are uint8 RGB (H, W, 3), maps uint8 or float in [0, 1]
(H, W).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

# stops: CIELAB lightness (0 to 100), chroma and hue (degrees)
PATH = ((4, 10, 290), (22, 48, 305), (40, 66, 340), (56, 76, 25), (70, 74, 62), (84, 66, 85), (96, 34, 104))
TRUTH = (32, 214, 238)  # colour of outlines
IGNORED = (128, 128, 128, 217)  # RGBA, over pixels that do not count
LIFT = 0.7  # exponent of overlays: the maximum of a test set is far above most defects
WHITE_D65 = np.array([0.95047, 1.0, 1.08883])
XYZ_TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


@cache
def scale() -> np.ndarray:
    """Return the colour map, (256, 3) uint8."""
    stops = np.linspace(0, 1, len(PATH))
    lightness, chroma, hue = np.array(PATH, dtype=float).T
    hue = np.rad2deg(np.unwrap(np.deg2rad(hue)))
    at = np.linspace(0, 1, 256)
    lightness, chroma, hue = (np.interp(at, stops, values) for values in (lightness, chroma, hue))
    lab = np.stack([lightness, chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))], axis=1)
    return _srgb(lab)


def colours(map_: np.ndarray) -> np.ndarray:
    """Return a map in colour."""
    return scale()[_grey(map_)]


def overlay(image: np.ndarray, map_: np.ndarray, strength: float = 0.78) -> np.ndarray:
    """Overlay a map on an image: low values show the faded image, high values the colour."""
    map_ = _grey(map_)
    if map_.shape != image.shape[:2]:
        map_ = np.asarray(Image.fromarray(map_).resize(image.shape[1::-1], Image.Resampling.BILINEAR))
    heat = (map_[:, :, None].astype(np.float32) / 255) ** LIFT
    grey = np.asarray(Image.fromarray(image).convert("L"))[:, :, None].astype(np.float32)
    faded = 0.55 * image + 0.35 * grey
    share = strength * np.clip(heat * 1.7 - 0.2, 0, 1)
    return np.round((1 - share) * faded + share * colours(heat[:, :, 0])).astype(np.uint8)


def greyed(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return an image grey and faint where pixels do not count; ``region`` is what counts, (H, W) bool."""
    grey = np.asarray(Image.fromarray(image).convert("L"))[:, :, None].astype(np.float32)
    faint = np.round(0.3 * grey + 0.7 * 128).astype(np.uint8)
    return np.where(region[:, :, None], image, faint)


def transparent(map_: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """Return a map in colour, transparent where it is low, (H, W, 4) RGBA, to be laid over an image.

    It is grey where pixels do not count; ``region`` is what counts, (H, W) bool, None: everything.
    """
    heat = (_grey(map_).astype(np.float32) / 255) ** LIFT
    share = np.clip(heat * 1.7 - 0.2, 0, 1)
    drawn = np.dstack([colours(heat), np.round(255 * share).astype(np.uint8)])
    return drawn if region is None else np.where(region[:, :, None], drawn, np.array(IGNORED, np.uint8))


def outline(image: np.ndarray, mask: np.ndarray, width: int = 1, colour: tuple[int, int, int] = TRUTH) -> np.ndarray:
    """Draw a mask's inner border, ``width`` pixels wide, and tint its area."""
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != image.shape[:2]:
        mask = np.asarray(Image.fromarray(mask).resize(image.shape[1::-1], Image.Resampling.NEAREST))
    inside = mask
    for _ in range(width):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = image.astype(np.float32)
    drawn[mask] = 0.72 * drawn[mask] + 0.28 * np.array(colour, dtype=np.float32)
    drawn[mask & ~inside] = colour
    return np.round(drawn).astype(np.uint8)


def css() -> str:
    """Return the colour map as a CSS gradient for a legend."""
    return f"linear-gradient(90deg, {', '.join('#{:02x}{:02x}{:02x}'.format(*scale()[i]) for i in range(0, 256, 17))})"


def _grey(map_: np.ndarray) -> np.ndarray:
    if map_.dtype == np.uint8:
        return map_
    return np.round(np.clip(map_, 0, 1) * 255).astype(np.uint8)


def _srgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB (N, 3), white point D65, to sRGB; colours outside the gamut are clipped."""
    fy = (lab[:, 0] + 16) / 116
    f = np.stack([fy + lab[:, 1] / 500, fy, fy - lab[:, 2] / 200], axis=1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * WHITE_D65
    linear = np.clip(xyz @ XYZ_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
