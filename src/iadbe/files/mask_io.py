"""Reads ground-truth masks, whatever they hold: two values, class labels, soft edges, palettes or colours.

* Two values: the higher one is defect.
* Labels (a few values, or many that form areas, such as numbers of instances): everything but the background is defect.
  The background is 0, black, or the lowest value; of coloured masks without black, the colour of the border.
* Soft edges (antialiased or JPEG): above half of the highest value is defect.
* A mask whose colours are all the same is read from its transparency, or from the numbers of its palette.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from iadbe.errors import BadData
from iadbe.files import decoding, image_io
from iadbe.files.decoding import Raster

SMALL = 32  # up to this value, whatever is not 0 is a label
FEW = 16  # distinct values; more of them are labels only if they form areas
AREA = 0.2  # share of the pixels of labels that have only equal neighbours, at least
COLOURED = 32  # difference of the channels; the noise of a grey JPEG stays below
BORDER = 0.05  # share of the border that is dark where black is the background of colours with soft edges
NOISE = 0.13  # of the highest value: how far lossy compression strays around black and white
FLAT = 0.03  # of the highest value: how far values differ within an area after lossy compression
PLATEAU = 9  # pixels in flat surroundings of 5x5 that make an area
LOSSY = ("JPEG", "MPO", "AVIF", "JPEG2000")


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
    lossy = not isinstance(image, Raster) and (image.format in LOSSY or _is_lossy_webp(path, image))
    values = _values(image, path)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadData(
            f"{path} holds numbers that are not finite: whether they mark a defect is not known. Save it again."
        )
    if values.ndim == 3:
        values, name = _numbered(values, lossy)
        if name and values.dtype == bool:
            return MaskReading(values, name)
        if name:
            found = _grey(values, lossy)
            return MaskReading(found.mask, f"{name}, {found.how}")
    if above is not None:
        return MaskReading(values > above, f"above {above:g}")
    return _grey(values, lossy)


def _is_lossy_webp(path: Path, image: Image.Image) -> bool:
    """Return whether a WebP holds a lossy image: a chunk named "VP8 ", not "VP8L"."""
    if image.format != "WEBP":
        return False
    with path.open("rb") as file:
        return b"VP8 " in file.read(4096)


def _values(image: Image.Image | Raster, path: Path) -> np.ndarray:
    """Return grey values (H, W), or colours (H, W, 3) where the channels differ."""
    if isinstance(image, Raster):
        values = np.asarray(image.upright())
        values = values.astype(np.float32) if values.dtype == np.float16 else values
    elif image.mode in ("1", "L"):
        values = np.asarray(image)
    else:
        values = np.asarray(image_io._to_rgb(image, path))
        if (values == values[:1, :1]).all():
            values = _hidden(image, values)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    return values.astype(np.uint8) * 255 if values.dtype == bool else values


def _hidden(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """Return the transparency, or the palette's numbers, of a mask with one colour, if they say more than that."""
    choices = [np.asarray(image)] if image.mode == "P" else []
    if image.mode in ("RGBA", "LA", "PA"):
        choices = [np.asarray(image.getchannel("A"))]
    return next((choice for choice in choices if choice.min(initial=255) < choice.max(initial=0)), values)


def _numbered(colours: np.ndarray, lossy: bool) -> tuple[np.ndarray, str]:
    """Return (mask, how) of exact colours, (distance from the background, how) of others, (values, "") of grey ones.

    The background is black, or without black the most frequent colour of the border.
    """
    top = colours.max(axis=2)
    if int((top.astype(np.int64) - colours.min(axis=2)).max(initial=0)) <= COLOURED and colours.dtype == np.uint8:
        return top, ""  # a grey JPEG
    found, index = np.unique(colours.reshape(-1, 3), axis=0, return_inverse=True)
    labels = index.reshape(colours.shape[:2])
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    exact = not lossy and len(found) <= FEW
    black = np.flatnonzero((found == 0).all(axis=1))
    dark = len(black) > 0 if exact else float((found[border].max(axis=1) <= COLOURED).mean()) >= BORDER
    background = np.zeros(3, found.dtype) if dark else found[np.bincount(border).argmax()]
    shade = "black" if dark else f"({', '.join(str(int(v)) for v in background)})"
    distance = np.abs(colours.astype(np.int64) - background.astype(np.int64)).max(axis=2)
    if exact:
        return distance > 0, f"{len(found) - 1} colours on {shade}"
    return distance.astype(colours.dtype), f"distance from {shade}"


def _grey(values: np.ndarray, lossy: bool) -> MaskReading:
    found = np.flatnonzero(np.bincount(values.ravel())) if values.dtype == np.uint8 else np.unique(values)
    top = float(found[-1]) if len(found) else 0.0
    if len(found) < 2:
        return MaskReading(values > 0, "one value")
    background = 0 if found[0] == 0 else found[0] if found[0] > 0 else _of_border(values)
    if len(found) == 2:
        return MaskReading(values != background, "two values")
    whole = values.dtype.kind != "f" or bool((found == np.floor(found)).all())
    if found[0] < 0 or (top <= SMALL and whole):
        return MaskReading(values != background, _labels(found[found != background]))
    least = _lowest_area(values) if lossy or _is_noisy(values, found) else _smallest_label(values, found)
    if least is not None:
        edge = float(background) + (float(least) - float(background)) / 2  # below: the soft edge of that label
        return MaskReading(values > edge, _labels(found[found >= least]))
    return MaskReading(values > top / 2, f"above half of {top:g}")


def _of_border(values: np.ndarray) -> float:
    """Return the most frequent value of the border."""
    found, counts = np.unique(np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]]), return_counts=True)
    return float(found[counts.argmax()])


def _is_noisy(values: np.ndarray, found: np.ndarray) -> bool:
    """Return whether the low values are noise of lossy compression: several, and rarely next to equal ones."""
    from scipy import ndimage  # takes longer to import than most masks to read, and predicting needs no masks

    low = (values > found[0]) & (values <= NOISE * float(found[-1]))
    if len(np.unique(values[low])) < 3:
        return False
    equal = np.zeros(values.shape, np.uint8)  # neighbours with the same value, of 8
    padded = np.pad(values, 1, mode="edge")
    height, width = values.shape
    for down in range(3):
        for right in range(3):
            equal += padded[down : down + height, right : right + width] == values
    edge = low & (ndimage.minimum_filter(values, 3) < ndimage.maximum_filter(values, 3))
    return bool(edge.any()) and float((equal[edge] - 1 < 3).mean()) > 0.5


def _lowest_area(values: np.ndarray) -> float | None:
    """Return the lowest value that fills an area of a mask with noise; None if that is the highest value."""
    from scipy import ndimage

    highest = float(values.max())
    spread = ndimage.maximum_filter(values, 5).astype(np.float64) - ndimage.minimum_filter(values, 5)
    inside = np.sort(values[(spread <= FLAT * highest) & (values > NOISE * highest)])
    if len(inside) < PLATEAU or inside[PLATEAU - 1] > (1 - 2 * NOISE) * highest:
        return None
    return float(inside[PLATEAU - 1])


def _smallest_label(values: np.ndarray, found: np.ndarray) -> float | None:
    """Return the lowest label, or None where the values between the lowest and the highest are a soft edge.

    A pixel of a soft edge lies between a lower and a higher neighbour. A label covers an area of its own, or stands
    beside lower values only.
    """
    from scipy import ndimage

    lowest, highest = ndimage.minimum_filter(values, 3), ndimage.maximum_filter(values, 3)
    if len(found) <= FEW:
        between = (lowest < values) & (values < highest)
        labels = [float(v) for v in found[1:-1] if float(between[values == v].mean()) < 0.5]
        return labels[0] if labels else None
    inner = (values > NOISE * float(found[-1])) & (values < (1 - NOISE) * float(found[-1]))
    flat = lowest == highest
    if not inner.any() or float(flat[inner].mean()) < AREA:
        return None
    return float(values[flat & (values > found[0])].min())


def _labels(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:4].tolist())
    return f"labels {shown}" + (f" and {len(values) - 4} more" if len(values) > 4 else "")
