"""The contract of a drawing: one kind of part, drawn by rule from random numbers, and the camera that looks at it.

All lengths are in units of 1/256 of the image's width, so an image of 512 pixels shows the same part as one of
256, only finer. Everything is drawn at twice the final size and then reduced, which smooths every edge.

Two machines agree on every byte: planes are float32 and only added, multiplied, compared and rooted, which is exact
everywhere; what is not, such as a sine, is computed in float64 and then rounded; noise is raw random bytes.
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
WIDE = 256.0  # units across the image
VISIBLE = 2.0  # grey levels of 255 by which a defect must change a pixel to count as seen


class Photo(NamedTuple):
    """An image (S, S, 3) uint8 and where the defect is: (S, S) bool, nowhere for a good part."""

    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Flaw:
    """What is wrong with one part."""

    kind: str
    force: float  # 0: hard to see, 1: plain
    rng: np.random.Generator  # decides everything about the defect and nothing else


class Drawing(ABC):
    """One kind of part. What is drawn follows from ``rng`` alone; the flaw, if any, is laid over it."""

    defects: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def draw(self, paper: Paper, rng: np.random.Generator, flaw: Flaw | None) -> np.ndarray:
        """Return the part as (3, 2S, 2S) float32, about 0 to 1, as light that reaches the lens.

        Must take the same numbers from ``rng`` with and without a flaw.
        """


def generator(*names: object) -> np.random.Generator:
    """Return the random numbers that belong to these names, the same on every machine."""
    digest = hashlib.sha256("|".join(map(str, names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def photograph(drawing: Drawing, name: str, kind: str = "good", force: float = 1.0, size: int = 256) -> Photo:
    """Draw the part called ``name`` and take its image.

    A part with a defect is photographed twice in the same light, without and with it. The defect is where the two
    differ visibly, closed to one solid region; outside of it the image is the one without.
    """
    paper = sheet(size)
    image = _lens(drawing.draw(paper, generator(name, "part"), None), generator(name, "camera"))
    mask = np.zeros((size, size), bool)
    if kind != "good":
        flaw = Flaw(kind, force, generator(name, "flaw"))
        flawed = _lens(drawing.draw(paper, generator(name, "part"), flaw), generator(name, "camera"))
        mask = _solid(np.abs(flawed - image).max(axis=0) >= VISIBLE)
        image = np.where(mask, flawed, image)
    image += _sensor(generator(name, "sensor"), size)
    return Photo(np.rint(image).clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy(), mask)


def _lens(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reduce to (3, S, S) grey levels 0 to 255 under a lamp, a white balance and a focus that all vary."""
    light = light[:, :, 0::2] + light[:, :, 1::2]
    light = light[:, 0::2] + light[:, 1::2]
    line = np.linspace(-1, 1, light.shape[-1])
    across, down, dim = rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06), rng.uniform(0.02, 0.06)
    lamp = (1 + across * line - dim * line**2)[None, :] + (down * line - dim * line**2)[:, None]
    cast = rng.uniform(0.94, 1.05) * rng.uniform(0.985, 1.015, 3)
    light *= (lamp * 255 / 4).astype(np.float32) * cast[:, None, None].astype(np.float32)
    spread = rng.uniform(0.04, 0.16)  # of each pixel's light reaches either neighbour
    light = np.pad(light, ((0, 0), (1, 1), (1, 1)), mode="edge")
    light = spread * (light[:, 2:] + light[:, :-2]) + (1 - 2 * spread) * light[:, 1:-1]
    return spread * (light[:, :, 2:] + light[:, :, :-2]) + (1 - 2 * spread) * light[:, :, 1:-1]


def _sensor(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return noise (3, S, S) in grey levels: partly common to the three colours, bell-shaped, from raw bytes."""
    raw = np.frombuffer(rng.bytes(12 * size * size), np.uint8).reshape(4, 3, size, size)
    total = raw[0].astype(np.uint16) + raw[1] + raw[2] + raw[3]
    bell = total.astype(np.float32) * np.float32(1 / 510) - 1  # standard deviation 0.29
    return (bell + bell[1]) * rng.uniform(2.5, 5.0)


def _solid(seen: np.ndarray) -> np.ndarray:
    """Close the gaps in a region, fill its holes and drop specks of fewer than four pixels."""
    reach = max(1, seen.shape[0] // 256)
    there = _extent(seen)
    padded = np.pad(seen[there], 4 * reach)
    closed = ndimage.binary_closing(padded, np.ones((3, 3), bool), iterations=reach)
    parts, _ = ndimage.label(ndimage.binary_fill_holes(closed), np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    solid = np.zeros_like(seen)
    solid[there] = (sizes >= 4 * reach**2)[parts][4 * reach : -4 * reach, 4 * reach : -4 * reach]
    return solid


def _extent(ink: np.ndarray) -> Window:
    """Return the rows and columns of (H, W) that hold all that is not 0."""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@cache
def sheet(size: int) -> Paper:
    """Return the one sheet of paper of this size."""
    return Paper(size)


class Paper:
    """A square sheet of 256 by 256 units on which all marks are (2S, 2S) planes."""

    def __init__(self, size: int) -> None:
        self.wide = 2 * size
        self.unit = WIDE / self.wide  # one fine pixel, in units
        line = (np.arange(self.wide) + 0.5) * self.unit
        self.x, self.y = line[None, :], line[:, None]
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def turned(self, angle: float, cx: float, cy: float, there: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates (u, v) of a frame with its origin at (cx, cy), turned by ``angle`` radians."""
        c, s = np.cos(angle), np.sin(angle)
        x, y = self.x[:, there[1]] - cx, self.y[there[0]] - cy
        return (x * c + y * s).astype(np.float32), (y * c - x * s).astype(np.float32)

    def window(self, cx: float, cy: float, reach: float, reach_y: float | None = None) -> Window:
        """Return what holds every point within ``reach`` of (cx, cy), or within ``reach_y`` of cy if that differs."""
        reaches = ((cy, reach if reach_y is None else reach_y), (cx, reach))
        ends = [(int(np.floor((c - r) / self.unit)), int(np.ceil((c + r) / self.unit))) for c, r in reaches]
        rows, columns = (slice(max(0, low), max(0, high)) for low, high in ends)
        return rows, columns

    def edge(self, distance: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """Turn signed distances (negative inside) into coverage 0 to 1, over ``soft`` units or one fine pixel."""
        return (0.5 - distance * (1 / max(soft, self.unit))).clip(0, 1)

    def clouds(self, rng: np.random.Generator, cells: int, there: Window = WHOLE) -> np.ndarray:
        """Return smooth random hills with ``cells`` of them across the sheet: mean 0, mostly within -1 to 1."""
        first, weights = self._splines(cells)
        heights = rng.uniform(-2, 2, (cells + 3, cells + 3)).astype(np.float32)
        columns, rows = first[there[1]], first[there[0]]
        across = sum(weights[k][there[1]] * heights[:, columns + k] for k in range(4))
        return sum(weights[k][there[0]][:, None] * across[rows + k] for k in range(4))

    def speckle(self, rng: np.random.Generator, there: Window = WHOLE) -> np.ndarray:
        """Return independent noise for every fine pixel, uniform between -1 and 1."""
        own = np.random.Generator(np.random.PCG64(int(rng.integers(2**62))))  # so that rng ignores the sheet's size
        raw = np.frombuffer(own.bytes(self.wide**2), np.uint8).reshape(self.wide, self.wide)[there]
        return raw.astype(np.float32) * np.float32(2 / 255) - 1

    def stroke(
        self, points: np.ndarray, widths: np.ndarray | float, soft: float = 0.0, ink: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the coverage of a pen drawn along ``points`` (N, 2) with the given width at each; adds to ``ink``."""
        ink = np.zeros((self.wide, self.wide), np.float32) if ink is None else ink
        widths = np.broadcast_to(widths, len(points))
        for (ax, ay), (bx, by), wa, wb in zip(points[:-1], points[1:], widths[:-1], widths[1:], strict=True):
            squared = max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9)
            there = self.window((ax + bx) / 2, (ay + by) / 2, squared**0.5 / 2 + max(wa, wb) + soft + 1)
            x, y = self.x[:, there[1]] - ax, self.y[there[0]] - ay
            along = ((x * (bx - ax) + y * (by - ay)) / squared).clip(0, 1)
            away = np.sqrt((x - along * (bx - ax)) ** 2 + (y - along * (by - ay)) ** 2) - (wa + along * (wb - wa)) / 2
            ink[there] = np.maximum(ink[there], self.edge(away, soft).astype(np.float32))
        return ink

    def blot(self, rng: np.random.Generator, at: tuple[float, float], radius: float, ragged: float) -> np.ndarray:
        """Return the distance, roughly, to the rim of an irregular spot of about this radius: negative inside."""
        cells = min(48, max(4, round(1.6 * WIDE / radius)))
        there = self.window(*at, radius * (1 + 2 * ragged) + 8)
        away = np.sqrt((self.x[:, there[1]] - at[0]) ** 2 + (self.y[there[0]] - at[1]) ** 2).astype(np.float32)
        rough = ragged * self.clouds(rng, cells, there) + 0.4 * ragged * self.clouds(rng, 3 * cells, there)
        distance = np.full((self.wide, self.wide), WIDE, np.float32)
        distance[there] = away - radius * (1 + rough)
        return distance

    def _splines(self, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Return, for every line of pixels, its first cell (2S,) and four cubic B-spline weights (4, 2S)."""
        if cells not in self._known:
            place = self.x[0] / WIDE * cells
            first = np.floor(place).astype(int)
            t = place - first
            four = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            self._known[cells] = first, (np.stack(four) / 6).astype(np.float32)
        return self._known[cells]


def wander(
    rng: np.random.Generator, at: tuple[float, float], angle: float, length: float, bend: float, steps: int = 12
) -> np.ndarray:
    """Return a path (steps + 1, 2) centred near ``at`` whose direction drifts by up to ``bend`` radians a step."""
    headings = angle + np.cumsum(rng.uniform(-bend, bend, steps))
    moves = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length / steps)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    return path - path.mean(axis=0) + np.array(at)


def over(below: np.ndarray, colour: tuple[float, float, float] | np.ndarray, ink: np.ndarray) -> None:
    """Paint ``colour`` over the planes (3, H, W) where ``ink`` (H, W) covers them; in place."""
    there = _extent(ink)
    for plane, level in zip(below, colour, strict=True):
        plane[there] += ink[there] * (float(level) - plane[there])
