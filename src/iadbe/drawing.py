"""The contract of a drawing: a procedural renderer of one kind of part, and a simulated camera.

Lengths are in 1/256 of the image's width, so an image of 512 pixels shows the same part as one of 256, at a higher
resolution. Images are rendered at twice the final size and then reduced, which antialiases edges.

Images are equal to the byte on all machines: planes are float32 and only added, multiplied, compared and rooted, which
is exact under IEEE 754; functions such as the sine are computed in float64 and then rounded; noise is raw random bytes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import ndimage

Window = tuple[slice, slice]  # rows and columns of a plane
WHOLE: Window = (slice(None), slice(None))
UNITS = 256.0  # units along a side of the image
VISIBLE = 2.0  # least difference, in grey levels of 255, of a pixel with and without the defect
PALPABLE = 1.0  # least difference in height, in units, likewise
WIDTH, DISTANCE = 0.1, 0.5  # of the scene and from the camera to the ground, in metres
STEEP = 4.0  # slope of a wall that the depth camera cannot see


class RenderedImage(NamedTuple):
    """An image (S, S, 3) uint8 and its defect mask (S, S) bool, all False for a normal part.

    Parts with a height also have their depth (S, S) float32 in metres from the camera, nan where nothing was measured.
    """

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray | None = None


@dataclass(frozen=True)
class Defect:
    """The defect of one part."""

    kind: str
    severity: float  # from 0, hard to see, to 1, easy to see
    rng: np.random.Generator  # of the defect only


class Drawing(ABC):
    """One kind of part. The image follows from ``rng``; a defect, if any, is rendered over it."""

    defects: ClassVar[tuple[str, ...]] = ()
    relief: ClassVar[bool] = False  # whether its depth is drawn too
    fine: ClassVar[bool] = False  # whether defects are far smaller than the image, which is then drawn large

    @abstractmethod
    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        """Return the scene's radiance as (3, 2S, 2S) float32, about 0 to 1.

        Must draw the same numbers from ``rng`` with and without a defect.
        """


class Relief(Drawing):
    """A part with a height, which a second camera measures. ``draw`` takes the same numbers from ``rng`` first."""

    @abstractmethod
    def height(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        """Return the height above the ground in units, (2S, 2S) float32."""


def generator(*names: object) -> np.random.Generator:
    """Return a random generator seeded with these names, the same on every machine."""
    digest = hashlib.sha256("|".join(map(str, names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def render(drawing: Drawing, name: str, kind: str = "good", severity: float = 1.0, size: int = 256) -> RenderedImage:
    """Render the part called ``name`` with a defect of ``kind`` (or "good") and ``severity`` from 0 to 1.

    A part with a defect is rendered twice under the same light, without and with it. The mask is where the two
    differ visibly or in height, closed and filled. Outside the mask, the image is the one without the defect.
    """
    canvas = canvas_of(size)
    image, height = _seen(drawing, canvas, name, None)
    mask = np.zeros((size, size), bool)
    if kind != "good":
        defective, deformed = _seen(drawing, canvas, name, Defect(kind, severity, generator(name, "flaw")))
        differs = np.abs(defective - image).max(axis=0) >= VISIBLE
        if height is not None and deformed is not None:
            differs |= np.abs(deformed - height) >= PALPABLE
        mask = _closed_region(differs, 1 if drawing.fine else max(1, size // 256))
        image = np.where(mask, defective, image)
        height = None if height is None or deformed is None else np.where(mask, deformed, height)
    image += _sensor_noise(generator(name, "sensor"), size)
    pixels = np.rint(image).clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
    return RenderedImage(pixels, mask, None if height is None else _measured(height, generator(name, "depth camera")))


def _seen(drawing: Drawing, canvas: Canvas, name: str, defect: Defect | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the part as the camera sees it (3, S, S), and its height (S, S) if it has one."""
    image = _camera(drawing.draw(canvas, generator(name, "part"), defect), generator(name, "camera"))
    if not isinstance(drawing, Relief):
        return image, None
    defect = None if defect is None else Defect(defect.kind, defect.severity, generator(name, "flaw"))
    fine = drawing.height(canvas, generator(name, "part"), defect)
    rows = fine[0::2] + fine[1::2]
    return image, (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25)


def _measured(height: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulate the depth camera: heights (S, S) in units to metres, on ground that is slightly tilted.

    Noise has a standard deviation of about 0.03 mm. Steep walls and single pixels are not measured.
    """
    size = len(height)
    line = np.linspace(-1, 1, size).astype(np.float32)
    along, across = rng.uniform(-0.001, 0.001, 2).astype(np.float32)
    raw = np.frombuffer(rng.bytes(3 * size * size), np.uint8).reshape(3, size, size)
    noise = (raw[0].astype(np.float32) + raw[1] - 255) * np.float32(3e-7)
    depth = np.float32(DISTANCE) + along * line + across * line[:, None] - height * np.float32(WIDTH / UNITS) + noise
    rise = np.pad(height, 1, mode="edge")
    slope = np.maximum(np.abs(rise[2:, 1:-1] - rise[:-2, 1:-1]), np.abs(rise[1:-1, 2:] - rise[1:-1, :-2]))
    unseen = (slope >= 2 * STEEP * UNITS / size) | (raw[2] == 0)
    return np.where(unseen, np.float32(np.nan), depth)


def _camera(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulate the camera: reduce to (3, S, S) grey levels, with random illumination, white balance and focus."""
    light = light[:, :, 0::2] + light[:, :, 1::2]
    light = light[:, 0::2] + light[:, 1::2]
    line = np.linspace(-1, 1, light.shape[-1])
    across, down, dim = rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06), rng.uniform(0.02, 0.06)
    lamp = (1 + across * line - dim * line**2)[None, :] + (down * line - dim * line**2)[:, None]
    balance = rng.uniform(0.94, 1.05) * rng.uniform(0.985, 1.015, 3)
    light *= (lamp * 255 / 4).astype(np.float32) * balance[:, None, None].astype(np.float32)
    spread = rng.uniform(0.04, 0.16)  # weight of each neighbour in the 3-tap blur
    light = np.pad(light, ((0, 0), (1, 1), (1, 1)), mode="edge")
    light = spread * (light[:, 2:] + light[:, :-2]) + (1 - 2 * spread) * light[:, 1:-1]
    return spread * (light[:, :, 2:] + light[:, :, :-2]) + (1 - 2 * spread) * light[:, :, 1:-1]


def _sensor_noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return noise (3, S, S) in grey levels: sums of four uniform bytes, correlated between the channels."""
    raw = np.frombuffer(rng.bytes(12 * size * size), np.uint8).reshape(4, 3, size, size)
    total = raw[0].astype(np.uint16) + raw[1] + raw[2] + raw[3]
    noise = total.astype(np.float32) * np.float32(1 / 510) - 1  # standard deviation 0.29
    return (noise + noise[1]) * rng.uniform(2.5, 5.0)


def _closed_region(visible: np.ndarray, reach: int) -> np.ndarray:
    """Close gaps of up to ``2 * reach`` pixels in a region, fill holes, remove parts below ``4 * reach**2`` pixels."""
    area = _bounding_window(visible)
    padded = np.pad(visible[area], 4 * reach)
    closed = ndimage.binary_closing(padded, np.ones((3, 3), bool), iterations=reach)
    parts, _ = ndimage.label(ndimage.binary_fill_holes(closed), np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    closed_mask = np.zeros_like(visible)
    closed_mask[area] = (sizes >= 4 * reach**2)[parts][4 * reach : -4 * reach, 4 * reach : -4 * reach]
    return closed_mask


def _bounding_window(alpha: np.ndarray) -> Window:
    """Return the bounding rows and columns of the non-zero values of (H, W)."""
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@cache
def canvas_of(size: int) -> Canvas:
    """Return the cached canvas for images of this size."""
    return Canvas(size)


class Canvas:
    """A square of 256 by 256 units; coverages and coordinates are planes of (2S, 2S) fine pixels."""

    def __init__(self, size: int) -> None:
        self.side = 2 * size
        self.unit = UNITS / self.side  # width of a fine pixel, in units
        line = (np.arange(self.side) + 0.5) * self.unit
        self.x, self.y = line[None, :], line[:, None]
        self._spline_cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def frame(self, angle: float, cx: float, cy: float, area: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Return coordinates (u, v) with their origin at (cx, cy), rotated by ``angle`` radians."""
        c, s = np.cos(angle), np.sin(angle)
        x, y = self.x[:, area[1]] - cx, self.y[area[0]] - cy
        return (x * c + y * s).astype(np.float32), (y * c - x * s).astype(np.float32)

    def window(self, cx: float, cy: float, reach: float, reach_y: float | None = None) -> Window:
        """Return rows and columns within ``reach`` of (cx, cy); ``reach_y`` is the vertical reach, if it differs."""
        reaches = ((cy, reach if reach_y is None else reach_y), (cx, reach))
        ends = [(int(np.floor((c - r) / self.unit)), int(np.ceil((c + r) / self.unit))) for c, r in reaches]
        rows, columns = (slice(max(0, low), max(0, high)) for low, high in ends)
        return rows, columns

    def coverage(self, distance: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """Return coverage from 0 to 1 of signed distances (negative inside), over ``soft`` units or one fine pixel."""
        return (0.5 - distance * (1 / max(soft, self.unit))).clip(0, 1)

    def smooth_noise(self, rng: np.random.Generator, cells: int, area: Window = WHOLE) -> np.ndarray:
        """Return smooth noise, a cubic B-spline over a grid of ``cells`` cells: mean 0, mostly within -1 to 1."""
        first, weights = self._splines(cells)
        heights = rng.uniform(-2, 2, (cells + 3, cells + 3)).astype(np.float32)
        columns, rows = first[area[1]], first[area[0]]
        across = sum(weights[k][area[1]] * heights[:, columns + k] for k in range(4))
        return sum(weights[k][area[0]][:, None] * across[rows + k] for k in range(4))

    def pixel_noise(self, rng: np.random.Generator, area: Window = WHOLE) -> np.ndarray:
        """Return independent noise for every fine pixel, uniform between -1 and 1."""
        own = np.random.Generator(np.random.PCG64(int(rng.integers(2**62))))  # so that rng does not depend on the size
        raw = np.frombuffer(own.bytes(self.side**2), np.uint8).reshape(self.side, self.side)[area]
        return raw.astype(np.float32) * np.float32(2 / 255) - 1

    def stroke(
        self, points: np.ndarray, widths: np.ndarray | float, soft: float = 0.0, alpha: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the coverage of a stroke along ``points`` (N, 2) of the given width at each; joined with ``alpha``."""
        alpha = np.zeros((self.side, self.side), np.float32) if alpha is None else alpha
        widths = np.broadcast_to(widths, len(points))
        for (ax, ay), (bx, by), wa, wb in zip(points[:-1], points[1:], widths[:-1], widths[1:], strict=True):
            squared = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9)
            area = self.window((ax + bx) / 2, (ay + by) / 2, squared**0.5 / 2 + max(wa, wb) + soft + 1)
            x, y = self.x[:, area[1]] - ax, self.y[area[0]] - ay
            along = ((x * (bx - ax) + y * (by - ay)) / squared).clip(0, 1)
            away = np.sqrt((x - along * (bx - ax)) ** 2 + (y - along * (by - ay)) ** 2) - (wa + along * (wb - wa)) / 2
            alpha[area] = np.maximum(alpha[area], self.coverage(away, soft).astype(np.float32))
        return alpha

    def spot_distance(
        self, rng: np.random.Generator, at: tuple[float, float], radius: float, ragged: float
    ) -> np.ndarray:
        """Return the approximate signed distance to an irregular spot of about this radius: negative inside."""
        cells = min(48, max(4, round(1.6 * UNITS / radius)))
        area = self.window(*at, radius * (1 + 2 * ragged) + 8)
        away = np.sqrt((self.x[:, area[1]] - at[0]) ** 2 + (self.y[area[0]] - at[1]) ** 2).astype(np.float32)
        rough = ragged * self.smooth_noise(rng, cells, area) + 0.4 * ragged * self.smooth_noise(rng, 3 * cells, area)
        distance = np.full((self.side, self.side), UNITS, np.float32)
        distance[area] = away - radius * (1 + rough)
        return distance

    def _splines(self, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first cell (2S,) and the four cubic B-spline weights (4, 2S) of every row or column."""
        if cells not in self._spline_cache:
            place = self.x[0] / UNITS * cells
            first = np.floor(place).astype(int)
            t = place - first
            four = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            self._spline_cache[cells] = first, (np.stack(four) / 6).astype(np.float32)
        return self._spline_cache[cells]


def random_path(
    rng: np.random.Generator, at: tuple[float, float], angle: float, length: float, bend: float, steps: int = 12
) -> np.ndarray:
    """Return a random walk (steps + 1, 2) centred at ``at``; its heading changes by up to ``bend`` radians a step."""
    headings = angle + np.cumsum(rng.uniform(-bend, bend, steps))
    moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / steps)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    return path - path.mean(axis=0) + np.array(at)


def paint(image: np.ndarray, colour: tuple[float, float, float] | np.ndarray, alpha: np.ndarray) -> None:
    """Alpha-blend ``colour`` over the planes (3, H, W) with ``alpha`` (H, W), in place."""
    area = _bounding_window(alpha)
    for plane, level in zip(image, colour, strict=True):
        plane[area] += alpha[area] * (float(level) - plane[area])
