"""Brushed steel sheet: fine brush marks along one direction under a band of light."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Canvas, Defect, Drawing, paint, random_path

STEEL = (0.94, 0.97, 1.00)
MARKS = ((0.5, 30.0, 0.085), (1.1, 80.0, 0.060), (2.7, 210.0, 0.045))  # width and length in units, strength
DARK, BARE = (0.16, 0.15, 0.15), (0.97, 0.97, 0.95)
TARNISH = ((0.50, 0.40, 0.26), (0.36, 0.40, 0.52), (0.42, 0.42, 0.40))  # rust, temper blue, dried water


class Metal(Drawing):
    """A sheet that fills the image; the direction of the grain, the marks and the illumination vary."""

    defects = ("crack", "dent", "scratch", "stain")

    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        along, across = canvas.frame(rng.uniform(-0.09, 0.09), 128, 128)
        bright, wide = rng.uniform(-50, 50), rng.uniform(85, 125)
        lit = (along - bright) * (1 / wide)
        level = 0.50 + 0.24 / (1 + lit * lit) + 0.03 * canvas.smooth_noise(rng, 3)
        grain = 1 + sum(_marks(along, across, rng, *mark) for mark in MARKS)
        if defect and defect.kind == "dent":
            level += _dent(canvas, defect)
        level *= grain
        light = np.stack([level * tone for tone in (STEEL + rng.uniform(-0.01, 0.01, 3)).tolist()])
        if defect and defect.kind == "scratch":
            _scratch(canvas, light, defect)
        if defect and defect.kind == "crack":
            _crack(canvas, light, defect)
        if defect and defect.kind == "stain":
            _stain(canvas, light, defect)
        return light


def _marks(
    along: np.ndarray, across: np.ndarray, rng: np.random.Generator, width: float, length: float, strength: float
) -> np.ndarray:
    """Return brush marks of one width and length, with random offsets and shades."""
    start = rng.uniform(0, 64, 1024).astype(np.float32)
    shade = rng.uniform(-strength, strength, 4096).astype(np.float32)
    lane = np.floor(across * (1 / width)).astype(np.intp)
    lane &= 1023
    mark = along * (1 / length) + start.take(lane)
    lane *= 67
    lane += mark.astype(np.intp)
    lane &= 4095
    return shade.take(lane)


def _dent(canvas: Canvas, defect: Defect) -> np.ndarray:
    """Return the brightness change of a dent: one side brighter, the other darker."""
    x, y = defect.rng.uniform(36, 220, 2).tolist()
    radius, angle = 7 + 11 * defect.rng.uniform(0.4, 1.0), defect.rng.uniform(-0.7, 0.7)
    u, v = canvas.frame(angle, x, y)
    u, v = u * (1 / radius), v * (1 / (radius * defect.rng.uniform(0.7, 1.0)))
    wall = (1 - u * u - v * v).clip(0, 1)
    return wall * np.sqrt(wall) * (u * 1.5 - 0.12) * (0.07 + 0.30 * defect.severity)


def _scratch(canvas: Canvas, light: np.ndarray, defect: Defect) -> None:
    """Render a scratch across the grain: a bright line with a dark side."""
    x, y = defect.rng.uniform(60, 196, 2).tolist()
    angle = defect.rng.uniform(0.35, np.pi - 0.35)
    path = random_path(defect.rng, (x, y), angle, 30 + 90 * defect.rng.uniform(0.3, 1.0), 0.09)
    width = (0.7 + 1.1 * defect.severity) * defect.rng.uniform(0.6, 1.1, len(path))
    width[[0, -1]] *= 0.3
    aside = np.array([-np.sin(angle), np.cos(angle)]) * 0.9
    paint(light, DARK, canvas.stroke(path + aside, width, 0.8) * (0.10 + 0.25 * defect.severity))
    paint(light, BARE, canvas.stroke(path, width, 0.8) * (0.18 + 0.55 * defect.severity))


def _crack(canvas: Canvas, light: np.ndarray, defect: Defect) -> None:
    """Render a crack: a jagged dark line that tapers, with up to two branches."""
    x, y = defect.rng.uniform(60, 196, 2).tolist()
    angle = defect.rng.uniform(0, 2 * np.pi)
    length = 22 + 60 * defect.severity * defect.rng.uniform(0.7, 1.0)
    trunk = random_path(defect.rng, (x, y), angle, length, 0.55, 14)
    alpha = canvas.stroke(trunk, np.linspace(0.9 + 1.1 * defect.severity, 0.4, len(trunk)), 0.6)
    for _ in range(round(2 * defect.severity)):
        root = trunk[int(defect.rng.integers(3, 9))]
        turn_off = angle + defect.rng.choice([-1, 1]) * defect.rng.uniform(0.5, 1.0)
        twig = random_path(defect.rng, (0, 0), turn_off, length * 0.35, 0.5, 6)
        alpha = np.maximum(alpha, canvas.stroke(twig - twig[0] + root, np.linspace(0.9, 0.3, len(twig)), 0.6))
    paint(light, DARK, alpha * (0.35 + 0.5 * defect.severity))


def _stain(canvas: Canvas, light: np.ndarray, defect: Defect) -> None:
    """Render a dried drop: a faint film with a darker rim."""
    x, y = defect.rng.uniform(36, 220, 2).tolist()
    rim = canvas.spot_distance(defect.rng, (x, y), 6 + 16 * defect.rng.uniform(0.3, 1.0), 0.3)
    film = canvas.coverage(rim, 2.5) * (0.55 + 0.6 * (1 - rim * rim / 8).clip(0, 1))
    paint(light, TARNISH[int(defect.rng.integers(len(TARNISH)))], film * (0.10 + 0.38 * defect.severity))
