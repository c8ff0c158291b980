"""Woven cloth: a twill of blue warp and pale weft, every float of yarn a little rod of its own."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Drawing, Flaw, Paper, over, wander

PITCH = 7.2  # units from yarn to yarn
GAP = (0.12, 0.12, 0.14)  # between the yarns
TABLE = (0.25, 0.25, 0.27)  # seen through a hole
WARP, WEFT = (0.33, 0.42, 0.58), (0.72, 0.70, 0.66)
OIL, RUST = (0.30, 0.25, 0.18), (0.52, 0.33, 0.17)
WRONG_YARN = ((0.20, 0.52, 0.44), (0.52, 0.32, 0.58), (0.52, 0.48, 0.42))  # greenish, violet, undyed


class Fabric(Drawing):
    """Cloth that fills the image; its phase, tilt, tension and yarns vary."""

    defects = ("colour", "hole", "stain", "thread")

    def draw(self, paper: Paper, rng: np.random.Generator, flaw: Flaw | None) -> np.ndarray:
        weave = _Weave(paper, rng)
        kind = flaw.kind if flaw else "good"
        if flaw and kind == "hole":
            weave.push_aside(paper, flaw)
        weave.lay()
        if flaw and kind == "colour":
            weave.misdye(flaw)
        if flaw and kind == "thread":
            weave.miss_thread(flaw)
        light = weave.light()
        if flaw and kind == "hole":
            weave.tear(paper, light, flaw)
        if flaw and kind == "stain":
            _stain(paper, light, flaw)
        return light


class _Weave:
    """Where each yarn runs. (u, v) are measured in yarns; warp yarns have whole numbers in u, weft yarns in v."""

    def __init__(self, paper: Paper, rng: np.random.Generator) -> None:
        stretch = rng.uniform(0.985, 1.015, 2).tolist()
        self.u, self.v = paper.turned(rng.uniform(-0.035, 0.035), *rng.uniform(102, 154, 2).tolist())
        self.u = self.u * (stretch[0] / PITCH) + 0.18 * paper.clouds(rng, 5)
        self.v = self.v * (stretch[1] / PITCH) + 0.18 * paper.clouds(rng, 5)
        self.tone = rng.uniform(0.95, 1.05, 256).astype(np.float32)  # how light each yarn is: 128 warp, 128 weft
        self.thin = rng.uniform(1.86, 2.10, 256).astype(np.float32)  # and how thin
        self.lean = rng.uniform(-0.3, 0.3)  # the light comes from one side
        self.fluff = 0.99 + 0.035 * paper.clouds(rng, 3) + 0.09 * paper.speckle(rng)
        self.dye: np.ndarray | None = None  # 0 to 1: how much of the warp's colour is another
        self.wrong = WARP
        self.hole = (0.0, 0.0, 1.0)

    def lay(self) -> None:
        """Decide for each pixel which yarn lies on top, and where on its float the pixel is."""
        i, j = np.floor(self.u), np.floor(self.v)
        a, b = self.u - i, self.v - j
        i, j = i.astype(np.int32), j.astype(np.int32)
        step = (i + j) & 3  # 2/2 twill: each yarn goes over two, then under two
        self.warp = step < 2
        self.yarn = np.where(self.warp, i & 127, j & 127 | 128).astype(np.intp)
        self.side = np.where(self.warp, a, b)
        self.along = a + b - self.side + (step & 1).astype(np.float32) - 1  # -1 to 1 along the float
        self.side -= 0.5
        self.side *= self.thin.take(self.yarn)  # -1 to 1 across the yarn
        self.fluff *= self.tone.take(self.yarn)

    def light(self) -> np.ndarray:
        """Return the cloth as (3, 2S, 2S): rods lit from one side, wound of fibres, over a dark ground."""
        bow, round_ = self.along * self.along, self.side * self.side
        round_ *= 0.88 + 0.2 * bow
        level = np.sqrt(np.maximum(1 - round_, 0.02))
        level *= 1 - 0.4 * bow
        twist = self.side * 1.1 + self.along * 1.7
        twist -= np.rint(twist)
        level *= 0.97 + 0.12 * np.abs(twist)
        level *= 1 + self.lean * self.side
        level *= self.fluff
        level = 0.16 + 0.84 * level
        warp = level * self.warp
        level -= warp
        light = np.empty((3, *level.shape), np.float32)
        for plane, back, blue, pale in zip(light, GAP, WARP, WEFT, strict=True):
            np.multiply(warp, 1.18 * blue - back, out=plane)
            plane += (1.18 * pale - back) * level
            plane += back
        if self.dye is not None:
            for plane, right, wrong in zip(light, WARP, self.wrong, strict=True):
                plane += self.dye * warp * (1.18 * (wrong - right))
        return light

    def misdye(self, flaw: Flaw) -> None:
        """One to three warp yarns come from another spool for a while."""
        self.dye = self._stretch(flaw, 50, 110) * np.float32(0.55 + 0.45 * flaw.force)
        self.wrong = WRONG_YARN[int(flaw.rng.integers(len(WRONG_YARN)))]

    def miss_thread(self, flaw: Flaw) -> None:
        """A warp yarn has broken and drawn back: where it lay on top, the weft beneath floats in its place."""
        there = self._stretch(flaw, 44, 130)
        self.warp = self.warp & ~there
        across, under = (self.u - np.floor(self.u) - 0.5)[there], (self.v - np.floor(self.v) - 0.5)[there]
        self.side[there], self.along[there] = 2 * under, across
        self.fluff[there] *= 0.66 + 0.24 * flaw.force  # it lies deeper than its neighbours

    def push_aside(self, paper: Paper, flaw: Flaw) -> None:
        """The yarns around a hole lean away from it."""
        x, y = flaw.rng.uniform(40, 216, 2).tolist()
        radius = 3.8 + 7.0 * flaw.force * flaw.rng.uniform(0.8, 1.1)
        self.hole = (x, y, radius)
        dx, dy = paper.turned(0, x, y)
        pull = (1 - (dx * dx + dy * dy) / (1.7 * radius) ** 2).clip(0, 1)
        pull *= pull * (0.4 / PITCH)
        self.u = self.u - pull * dx
        self.v = self.v - pull * dy

    def tear(self, paper: Paper, light: np.ndarray, flaw: Flaw) -> None:
        """Open the hole: its rim is frayed yarn by yarn, and a few broken ends hang into it."""
        x, y, radius = self.hole
        fray = (self.tone.take(self.yarn) - 1) * (7.0 * radius)
        rim = paper.blot(flaw.rng, (x, y), radius, 0.2) + fray
        over(light, GAP, paper.edge(rim, 6.0) * 0.4)
        over(light, TABLE, paper.edge(rim + 0.5, 1.5) * 0.95)
        for _ in range(1 + round(3 * flaw.force)):
            turn, bow = flaw.rng.uniform(0, 2 * np.pi), flaw.rng.uniform(0.5, 1.0)
            root = (x + bow * radius * np.cos(turn), y + bow * radius * np.sin(turn))
            path = wander(flaw.rng, root, turn + flaw.rng.uniform(-0.9, 0.9), radius * 1.1, 0.5, 6)
            over(light, WEFT if flaw.rng.integers(2) else WARP, paper.stroke(path, 1.1, 1.0) * 0.7)

    def _stretch(self, flaw: Flaw, short: float, long: float) -> np.ndarray:
        """Return (2S, 2S) bool: a stretch of warp yarns, ``short`` to ``long`` units of it."""
        first, middle = flaw.rng.integers(-9, 9), flaw.rng.uniform(-9, 9)
        reach = (short + (long - short) * flaw.force * flaw.rng.uniform(0.7, 1.0)) / 2 / PITCH
        many = 1 + int(flaw.kind == "colour" and flaw.rng.integers(0, 2) + (flaw.force > 0.6))
        number = np.floor(self.u)
        return self.warp & (number >= first) & (number < first + many) & (np.abs(self.v - middle) < reach)


def _stain(paper: Paper, light: np.ndarray, flaw: Flaw) -> None:
    """Oil or rust has soaked in: darker, most so at its rim."""
    x, y = flaw.rng.uniform(36, 220, 2).tolist()
    radius = 8 + 16 * flaw.rng.uniform(0.7, 1.1) * (0.4 + 0.6 * flaw.force)
    rim = paper.blot(flaw.rng, (x, y), radius, 0.35)
    wet = paper.edge(rim, 3.0) * (0.8 + 0.25 * (1 - rim * rim / 20).clip(0, 1))
    over(light, OIL if flaw.rng.integers(2) else RUST, wet * (0.24 + 0.38 * flaw.force))
