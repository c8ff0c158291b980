"""A cast cover on a conveyor belt: a disc with a rim, six studs and a bored boss. Its depth is measured too."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iadbe.drawing import Canvas, Defect, Relief, paint

STUDS = 6
BORE, BOSS, CIRCLE, STUD, RIM, DISC = 9.0, 24.0, 49.0, 8.0, 75.0, 86.0  # radii in units
ALUMINIUM = (0.90, 0.92, 0.95)
BELT = (0.20, 0.23, 0.22)
OXIDE = (0.30, 0.26, 0.20)


class _Place(NamedTuple):
    """Where the part lies, and the coordinates (u, v) in its own frame."""

    at: tuple[float, float]
    spin: float
    scale: float
    u: np.ndarray
    v: np.ndarray


class Casting(Relief):
    """One cover near the centre; position, rotation, size, surface and illumination vary. Deformations hardly show."""

    defects = ("bump", "dent", "missing", "stain")
    relief = True

    def height(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        return self._shape(canvas, self._place(canvas, rng), rng, defect)

    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        place = self._place(canvas, rng)
        height = self._shape(canvas, place, rng, defect)
        lamp = rng.uniform(0, 2 * np.pi)
        down, across = np.zeros_like(height), np.zeros_like(height)
        down[1:-1] = (height[2:] - height[:-2]) * (0.5 / canvas.unit)
        across[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * (0.5 / canvas.unit)
        slope = (across * np.cos(lamp).item() + down * np.sin(lamp).item()).clip(-1.5, 1.5)
        level = 0.62 + 0.09 * slope + 0.03 * canvas.smooth_noise(rng, 5) + 0.08 * canvas.pixel_noise(rng)
        face = np.stack([level * tone for tone in (ALUMINIUM + rng.uniform(-0.012, 0.012, 3)).tolist()])
        if defect and defect.kind == "stain":
            paint(face, OXIDE, _stain(canvas, defect, place))
        belt = 1 + 0.08 * canvas.smooth_noise(rng, 50) + 0.12 * canvas.pixel_noise(rng)
        light = np.stack([belt * tone for tone in BELT])
        light += canvas.coverage(_radius(place) * place.scale - DISC * place.scale) * (face - light)
        return light

    def _place(self, canvas: Canvas, rng: np.random.Generator) -> _Place:
        x, y = rng.uniform(120, 136, 2).tolist()
        spin, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.98, 1.02)
        u, v = canvas.frame(spin, x, y)
        return _Place((x, y), spin, scale, u * np.float32(1 / scale), v * np.float32(1 / scale))

    def _shape(self, canvas: Canvas, place: _Place, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        radius = _radius(place)
        angle = (np.arctan2(place.v.astype(np.float64), place.u) * (STUDS / (2 * np.pi))).astype(np.float32)
        nearest = np.rint(angle)
        stud = np.where(nearest < 0, nearest + STUDS, nearest).astype(np.intp)  # -3 becomes 3
        off = (angle - nearest).astype(np.float64) * (2 * np.pi / STUDS)
        along = radius * np.cos(off).astype(np.float32) - CIRCLE
        aside = radius * np.sin(off).astype(np.float32)
        tall = rng.uniform(10.5, 11.5, STUDS).astype(np.float32)
        rough = 0.25 * canvas.smooth_noise(rng, 40)
        if defect and defect.kind == "missing":
            tall[int(defect.rng.integers(STUDS))] *= 0.7 - 0.7 * defect.severity
        body = 16 * _step(radius - DISC, 4.0)
        body += 7 * _step(np.abs(radius - RIM) - 5, 4.0)
        body += 12 * _step(radius - BOSS, 4.0) - 20 * _step(radius - BORE, 4.0)
        body += tall.take(stud) * _step(np.sqrt(along * along + aside * aside) - STUD, 3.0)
        body += rough * _step(radius - DISC, 1.0)
        if defect and defect.kind in ("bump", "dent"):
            body += (1 if defect.kind == "bump" else -1) * _deformation(canvas, defect, place)
        return body.astype(np.float32)


def _radius(place: _Place) -> np.ndarray:
    return np.sqrt(place.u * place.u + place.v * place.v + np.float32(1e-3))


def _step(distance: np.ndarray, soft: float) -> np.ndarray:
    """Return a rounded step from 1 (inside, negative distances) to 0 over ``soft`` units."""
    t = (0.5 - distance * np.float32(1 / soft)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _somewhere(defect: Defect, place: _Place, low: float, high: float) -> tuple[float, float]:
    """Return a random point of the part between two radii."""
    angle, reach = defect.rng.uniform(0, 2 * np.pi), defect.rng.uniform(low, high) * place.scale
    return place.at[0] + reach * np.cos(angle), place.at[1] + reach * np.sin(angle)


def _deformation(canvas: Canvas, defect: Defect, place: _Place) -> np.ndarray:
    """Return the height of a smooth bump."""
    x, y = _somewhere(defect, place, 30, 66)
    u, v = canvas.frame(defect.rng.uniform(0, np.pi), x, y)
    wide = 10 + 5 * defect.rng.uniform(0.3, 1.0)
    long = wide * defect.rng.uniform(0.75, 1.0)
    inside = (1 - u * u * np.float32(1 / wide**2) - v * v * np.float32(1 / long**2)).clip(0, 1)
    return inside * inside * np.float32(3 + 5 * defect.severity)


def _stain(canvas: Canvas, defect: Defect, place: _Place) -> np.ndarray:
    """Return the coverage of a patch of oxide."""
    rim = canvas.spot_distance(defect.rng, _somewhere(defect, place, 28, 64), 7 + 7 * defect.rng.uniform(0.3, 1), 0.3)
    return canvas.coverage(rim, 2.5) * (0.16 + 0.45 * defect.severity)
