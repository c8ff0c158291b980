"""Reads ground-truth masks, whatever they hold: two values, class labels, soft edges, palettes or colours.

* Two values: the higher one is defect.
* Labels (a few values, or many that form areas, such as numbers of instances): everything but the background is defect.
  The background is 0, black, or the lowest value.
* Soft edges (antialiased or JPEG): above half of the highest value is defect.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from iadbe.files import decoding, image_io
from iadbe.files.decoding import Raster

SMALL = 32  # up to this value, whatever is not 0 is a label
FEW = 16  # distinct values; more of them are labels only if they form areas
AREA = 0.2  # share of the pixels of labels that have only equal neighbours, at least
COLOURED = 32  # difference of the channels; the noise of a grey JPEG stays below
LOSSY = ("JPEG", "MPO")


class MaskReading(NamedTuple):
    """A mask, and how it was read."""

    mask: np.ndarray  # (H, W) bool, True at defects
    how: str  # "two values", "labels 100, 255", "above half of 255" …


def read_mask(path: Path, above: float | None = None) -> np.ndarray:
    """Return a ground truth as (H, W) bool. With ``above``, defect is what lies above that grey value."""
    return read(path, above).mask


def read(path: Path, above: float | None = None) -> MaskReading:
    """Return a ground truth and how it was read. Raises :class:`BadData` that names the file."""
    image = decoding.decode(path)
    lossy = not isinstance(image, Raster) and image.format in LOSSY
    values = _values(image, path)
    if values.ndim == 3:
        values, name = _numbered(values, lossy)
        if name:
            return MaskReading(values > 0, name)
    if above is not None:
        return MaskReading(values > above, f"above {above:g}")
    return _grey(values, lossy)


def _values(image: Image.Image | Raster, path: Path) -> np.ndarray:
    """Return grey values (H, W), or colours (H, W, 3) where the channels differ."""
    if isinstance(image, Raster):
        values = np.asarray(image.values)
    elif image.mode in ("1", "L"):
        values = np.asarray(image)
    else:
        values = np.asarray(image_io._to_rgb(image, path))
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    return values.astype(np.uint8) * 255 if values.dtype == bool else values


def _numbered(colours: np.ndarray, lossy: bool) -> tuple[np.ndarray, str]:
    """Return (labels (H, W), how) of a coloured mask with few colours; else its brightest channel and no words.

    Label 0 is the background: black, or without black the most frequent colour of the border.
    """
    top = colours.max(axis=2)
    if int((top.astype(np.int64) - colours.min(axis=2)).max(initial=0)) <= COLOURED and colours.dtype == np.uint8:
        return top, ""  # a grey JPEG
    found, index = np.unique(colours.reshape(-1, 3), axis=0, return_inverse=True)
    labels = index.reshape(colours.shape[:2])
    if lossy or len(found) > FEW:
        return (top > COLOURED).astype(np.uint8), f"colours brighter than {COLOURED}"
    black = np.flatnonzero((found == 0).all(axis=1))
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    background = int(black[0]) if len(black) else int(np.bincount(border).argmax())
    shade = "black" if len(black) else f"({', '.join(str(int(v)) for v in found[background])})"
    return (labels != background).astype(np.uint8), f"{len(found) - 1} colours on {shade}"


def _grey(values: np.ndarray, lossy: bool) -> MaskReading:
    found = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    top = float(found[-1]) if len(found) else 0.0
    if len(found) < 2:
        return MaskReading(values > 0, "one value")
    background = 0 if found[0] == 0 or (top <= SMALL and values.dtype.kind != "f") else found[0]
    if len(found) == 2:
        return MaskReading(values > background, "two values")
    if top <= SMALL and values.dtype.kind != "f":
        return MaskReading(values > 0, _labels(found[found > 0]))
    least = None if lossy or values.dtype.kind == "f" else _smallest_label(values, found)
    if least is not None:
        edge = float(background) + (float(least) - float(background)) / 2  # below: the soft edge of that label
        return MaskReading(values > edge, _labels(found[found >= least]))
    return MaskReading(values > top / 2, f"above half of {top:g}")


def _smallest_label(values: np.ndarray, found: np.ndarray) -> float | None:
    """Return the lowest label, or None where the values between the lowest and the highest are a soft edge.

    A pixel of a soft edge lies between a lower and a higher neighbour. A label covers an area of its own, or stands
    beside lower values only.
    """
    from scipy import ndimage  # takes longer to import than most masks to read, and predicting needs no masks

    lowest, highest = ndimage.minimum_filter(values, 3), ndimage.maximum_filter(values, 3)
    if len(found) <= FEW:
        between = (lowest < values) & (values < highest)
        labels = [float(v) for v in found[1:-1] if float(between[values == v].mean()) < 0.5]
        return labels[0] if labels else None
    noise = 0.13 * float(found[-1])  # of a JPEG, around black and white
    inner = (values > noise) & (values < found[-1] - noise)
    flat = lowest == highest
    if not inner.any() or float(flat[inner].mean()) < AREA:
        return None
    return float(values[flat & (values > found[0])].min())


def _labels(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:4].tolist())
    return f"labels {shown}" + (f" and {len(values) - 4} more" if len(values) > 4 else "")
