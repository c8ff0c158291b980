"""Brushed steel sheet: thousands of fine marks along one direction, and a band of light that lies across them."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Drawing, Flaw, Paper, over, wander

STEEL = (0.94, 0.97, 1.00)
MARKS = ((0.5, 30.0, 0.085), (1.1, 80.0, 0.060), (2.7, 210.0, 0.045))  # width and length in units, strength
DARK, BARE = (0.16, 0.15, 0.15), (0.97, 0.97, 0.95)
TARNISH = ((0.50, 0.40, 0.26), (0.36, 0.40, 0.52), (0.42, 0.42, 0.40))  # rust, temper blue, dried water


class Metal(Drawing):
    """A sheet that fills the image; the direction of its grain, every mark and the lamp vary."""

    defects = ("crack", "dent", "scratch", "stain")

    def draw(self, paper: Paper, rng: np.random.Generator, flaw: Flaw | None) -> np.ndarray:
        along, across = paper.turned(rng.uniform(-0.09, 0.09), 128, 128)
        bright, wide = rng.uniform(-50, 50), rng.uniform(85, 125)
        lit = (along - bright) * (1 / wide)
        level = 0.50 + 0.24 / (1 + lit * lit) + 0.03 * paper.clouds(rng, 3)
        grain = 1 + sum(_marks(along, across, rng, *mark) for mark in MARKS)
        if flaw and flaw.kind == "dent":
            level += _dent(paper, flaw)
        level *= grain
        light = np.stack([level * tone for tone in (STEEL + rng.uniform(-0.01, 0.01, 3)).tolist()])
        if flaw and flaw.kind == "scratch":
            _scratch(paper, light, flaw)
        if flaw and flaw.kind == "crack":
            _crack(paper, light, flaw)
        if flaw and flaw.kind == "stain":
            _stain(paper, light, flaw)
        return light


def _marks(
    along: np.ndarray, across: np.ndarray, rng: np.random.Generator, width: float, length: float, strength: float
) -> np.ndarray:
    """Return one coarseness of brush marks: lanes of this width, each cut into marks that start anywhere."""
    start = rng.uniform(0, 64, 1024).astype(np.float32)
    shade = rng.uniform(-strength, strength, 4096).astype(np.float32)
    lane = np.floor(across * (1 / width)).astype(np.intp)
    lane &= 1023
    mark = along * (1 / length) + start.take(lane)
    lane *= 67
    lane += mark.astype(np.intp)
    lane &= 4095
    return shade.take(lane)


def _dent(paper: Paper, flaw: Flaw) -> np.ndarray:
    """Return how a hollow bends the light: one flank brighter, the other darker."""
    x, y = flaw.rng.uniform(36, 220, 2).tolist()
    radius, turn = 7 + 11 * flaw.rng.uniform(0.4, 1.0), flaw.rng.uniform(-0.7, 0.7)
    u, v = paper.turned(turn, x, y)
    u, v = u * (1 / radius), v * (1 / (radius * flaw.rng.uniform(0.7, 1.0)))
    wall = (1 - u * u - v * v).clip(0, 1)
    return wall * np.sqrt(wall) * (u * 1.5 - 0.12) * (0.07 + 0.30 * flaw.force)


def _scratch(paper: Paper, light: np.ndarray, flaw: Flaw) -> None:
    """A sharp thing slid over the sheet: a bright furrow with a dark flank, off the direction of the grain."""
    x, y = flaw.rng.uniform(60, 196, 2).tolist()
    turn = flaw.rng.uniform(0.35, np.pi - 0.35)
    path = wander(flaw.rng, (x, y), turn, 30 + 90 * flaw.rng.uniform(0.3, 1.0), 0.09)
    width = (0.7 + 1.1 * flaw.force) * flaw.rng.uniform(0.6, 1.1, len(path))
    width[[0, -1]] *= 0.3
    aside = np.array([-np.sin(turn), np.cos(turn)]) * 0.9
    over(light, DARK, paper.stroke(path + aside, width, 0.8) * (0.10 + 0.25 * flaw.force))
    over(light, BARE, paper.stroke(path, width, 0.8) * (0.18 + 0.55 * flaw.force))


def _crack(paper: Paper, light: np.ndarray, flaw: Flaw) -> None:
    """The sheet has torn: a jagged dark line that thins out, with a branch or two."""
    x, y = flaw.rng.uniform(60, 196, 2).tolist()
    turn = flaw.rng.uniform(0, 2 * np.pi)
    length = 22 + 60 * flaw.force * flaw.rng.uniform(0.7, 1.0)
    trunk = wander(flaw.rng, (x, y), turn, length, 0.55, 14)
    ink = paper.stroke(trunk, np.linspace(0.9 + 1.1 * flaw.force, 0.4, len(trunk)), 0.6)
    for _ in range(round(2 * flaw.force)):
        root = trunk[int(flaw.rng.integers(3, 9))]
        turn_off = turn + flaw.rng.choice([-1, 1]) * flaw.rng.uniform(0.5, 1.0)
        twig = wander(flaw.rng, (0, 0), turn_off, length * 0.35, 0.5, 6)
        ink = np.maximum(ink, paper.stroke(twig - twig[0] + root, np.linspace(0.9, 0.3, len(twig)), 0.6))
    over(light, DARK, ink * (0.35 + 0.5 * flaw.force))


def _stain(paper: Paper, light: np.ndarray, flaw: Flaw) -> None:
    """A drop has dried: a faint film with a darker rim."""
    x, y = flaw.rng.uniform(36, 220, 2).tolist()
    rim = paper.blot(flaw.rng, (x, y), 6 + 16 * flaw.rng.uniform(0.3, 1.0), 0.3)
    film = paper.edge(rim, 2.5) * (0.55 + 0.6 * (1 - rim * rim / 8).clip(0, 1))
    over(light, TARNISH[int(flaw.rng.integers(len(TARNISH)))], film * (0.10 + 0.38 * flaw.force))
