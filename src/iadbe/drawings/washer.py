"""A toothed lock washer on a rubber mat: twelve twisted teeth, zinc plated, with a soft shadow."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Drawing, Flaw, Paper, over, wander

TEETH = 12
BORE, RING, TIP = 36.0, 61.0, 82.0  # radii in units
ZINC = (0.98, 0.97, 0.93)
MAT = (0.27, 0.31, 0.36)
SHADE = (0.05, 0.06, 0.08)
RUST = (0.45, 0.24, 0.10)


class Washer(Drawing):
    """One washer, anywhere near the middle and turned anyhow; size, teeth, lamp and mat vary."""

    defects = ("bent", "crack", "missing", "stain")

    def draw(self, paper: Paper, rng: np.random.Generator, flaw: Flaw | None) -> np.ndarray:
        x, y = rng.uniform(112, 144, 2).tolist()
        spin, scale, lamp = rng.uniform(0, 2 * np.pi), rng.uniform(0.97, 1.03), rng.uniform(0.5, 1.1)
        there = paper.window(x, y, TIP * scale + 14)
        u, v = paper.turned(spin, x, y, there)
        part = _Part(rng, u * (1 / scale), v * (1 / scale), lamp - spin)
        if flaw and flaw.kind == "bent":
            part.bend(flaw)
        if flaw and flaw.kind == "missing":
            part.break_off(paper.clouds(flaw.rng, 48, there), flaw)
        part.shape()
        light = _mat(paper, rng)
        ground = light[:, *there]
        far = (round(5 * np.sin(lamp) / paper.unit), round(5 * np.cos(lamp) / paper.unit))
        over(ground, SHADE, paper.edge(np.roll(part.distance, far, (0, 1)) - 1, 9.0) * 0.6)
        over(ground, SHADE, paper.edge(part.distance - 1, 4.0) * 0.3)
        level = part.level(
            0.045 * paper.clouds(rng, 6, there) + 0.05 * paper.speckle(rng, there), rng, lamp, paper.unit
        )
        face = np.stack([level * tone for tone in (ZINC + rng.uniform(-0.012, 0.012, 3)).tolist()])
        if flaw and flaw.kind == "crack":
            over(face, SHADE, _crack(paper, flaw, (x, y), spin, scale)[there])
        if flaw and flaw.kind == "stain":
            over(face, RUST, _rust(paper, flaw, (x, y))[there])
        metal = paper.edge(part.distance * scale)
        ground += metal * (face - ground)
        return light


class _Part:
    """The washer in its own frame: (u, v) from its middle, angles from its first tooth."""

    def __init__(self, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, lamp: float) -> None:
        self.u, self.v = u, v
        self.lamp = (np.cos(lamp).item(), np.sin(lamp).item())  # in this frame
        self.radius = np.sqrt(u * u + v * v + 1e-3)
        turn = (np.arctan2(v.astype(np.float64), u) * (TEETH / (2 * np.pi))).astype(np.float32)  # in teeth
        nearest = np.rint(turn)
        self.aside = (turn - nearest) * self.radius * (2 * np.pi / TEETH)  # units from the tooth's middle line
        self.tooth = np.where(nearest < 0, nearest + TEETH, nearest).astype(np.intp)  # -6 becomes 6
        self.skew = rng.uniform(-0.03, 0.03, TEETH).astype(np.float32)
        self.long = rng.uniform(TIP - 0.7, TIP + 0.7, TEETH).astype(np.float32)
        self.twist = rng.uniform(0.85, 1.15, TEETH).astype(np.float32)
        self.chip: np.ndarray | None = None

    def bend(self, flaw: Flaw) -> None:
        """One tooth is pushed sideways and out of its twist."""
        k, way = int(flaw.rng.integers(TEETH)), 1 if flaw.rng.integers(2) else -1
        self.skew[k] += way * (0.10 + 0.42 * flaw.force)
        self.long[k] -= 1.0 + 4 * flaw.force
        self.twist[k] = 0.7 - 1.6 * flaw.force

    def break_off(self, rough: np.ndarray, flaw: Flaw) -> None:
        """One tooth has lost its tip, or all of itself; the break is rough."""
        k = int(flaw.rng.integers(TEETH))
        left = TIP - 3.5 - (TIP - RING - 2) * flaw.force * flaw.rng.uniform(0.8, 1.0)
        self.chip = np.where((self.tooth == k) & (self.radius > RING), self.radius - left - 1.6 * rough, -TIP)

    def shape(self) -> None:
        """Find the signed distance to the outline: ring and teeth, melted into each other."""
        above = self.radius - RING
        aside = np.abs(self.aside - self.skew.take(self.tooth) * np.maximum(above, 0))
        outward = np.maximum(self.radius - self.long.take(self.tooth), RING - 5 - self.radius)
        tooth = np.maximum(aside - (9.4 - 0.085 * above), outward)
        ring = np.abs(self.radius - (BORE + RING) / 2) - (RING - BORE) / 2
        mix = (0.5 + (tooth - ring) * (0.5 / 3)).clip(0, 1)
        self.distance = tooth + mix * (ring - tooth) - 3 * mix * (1 - mix)
        if self.chip is not None:
            self.distance = np.maximum(self.distance, self.chip)

    def level(self, uneven: np.ndarray, rng: np.random.Generator, lamp: float, unit: float) -> np.ndarray:
        """Return how bright the metal is: face, twisted teeth, rounded edges."""
        lx, ly = self.lamp
        toward, past = (self.u * lx + self.v * ly) / self.radius, (self.u * ly - self.v * lx) / self.radius
        lathe = rng.uniform(-1, 1, 512).astype(np.float32).take((self.radius * 3).astype(np.intp) & 511)
        bow = toward * toward
        level = 0.58 + 0.17 * bow * bow + uneven
        level += lathe * (0.015 + 0.05 * bow)
        raised = ((self.radius - RING + 1) * (1 / 7)).clip(0, 1)
        level += raised * past * self.twist.take(self.tooth) * 0.30
        bevel = (1 + self.distance * (1 / 2.8)).clip(0, 1)
        bevel *= bevel
        facing = np.zeros_like(bevel)  # how much the outline faces the lamp
        facing[1:] = (self.distance[:-1] - self.distance[1:]) * (np.sin(lamp) / unit).item()
        facing[:, 1:] += (self.distance[:, :-1] - self.distance[:, 1:]) * (np.cos(lamp) / unit).item()
        level += bevel * (facing * 0.38 - 0.04)
        return level.clip(0, 1.15)


def _crack(paper: Paper, flaw: Flaw, at: tuple[float, float], spin: float, scale: float) -> np.ndarray:
    """Return the coverage of a crack that runs from the bore outwards, through the whole ring if plain."""
    turn = spin + flaw.rng.uniform(0, 2 * np.pi)
    length = (9 + (RING - BORE - 6) * flaw.force) * scale
    path = wander(flaw.rng, (0, 0), turn + flaw.rng.uniform(-0.35, 0.35), length, 0.45, 9)
    root = np.array(at) + BORE * scale * np.array([np.cos(turn), np.sin(turn)])
    widths = np.linspace(1.6 + 1.2 * flaw.force, 0.5 + 0.6 * flaw.force, len(path))
    return paper.stroke(path - path[0] + root, widths, 0.6) * (0.5 + 0.42 * flaw.force)


def _rust(paper: Paper, flaw: Flaw, at: tuple[float, float]) -> np.ndarray:
    """Return the coverage of a patch where the plating has failed, freckled at its rim."""
    turn, reach = flaw.rng.uniform(0, 2 * np.pi), flaw.rng.uniform(BORE + 6, RING - 2)
    spot = (at[0] + reach * np.cos(turn), at[1] + reach * np.sin(turn))
    radius = 4 + 8 * flaw.force * flaw.rng.uniform(0.7, 1.1)
    rim, there = paper.blot(flaw.rng, spot, radius, 0.35), paper.window(*spot, 2 * radius + 8)
    rim[there] += 2.0 * paper.clouds(flaw.rng, 80, there)
    ink = paper.edge(rim, 2.5) * (0.22 + 0.5 * flaw.force)
    ink[there] *= 0.9 + 0.3 * paper.speckle(flaw.rng, there)
    return ink


def _mat(paper: Paper, rng: np.random.Generator) -> np.ndarray:
    """Return a matt, faintly grainy ground."""
    level = 1 + 0.07 * paper.clouds(rng, 4) + 0.05 * paper.clouds(rng, 60) + 0.10 * paper.speckle(rng)
    return np.stack([level * tone for tone in MAT])
