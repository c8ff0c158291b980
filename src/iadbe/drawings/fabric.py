"""Woven fabric: a 2/2 twill of blue warp and pale weft yarns."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Canvas, Defect, Drawing, paint, random_path

PITCH = 7.2  # units from yarn to yarn
GAP = (0.12, 0.12, 0.14)  # background between the yarns
TABLE = (0.25, 0.25, 0.27)  # background seen through a hole
WARP, WEFT = (0.33, 0.42, 0.58), (0.72, 0.70, 0.66)
OIL, RUST = (0.30, 0.25, 0.18), (0.52, 0.33, 0.17)
WRONG_YARN = ((0.20, 0.52, 0.44), (0.52, 0.32, 0.58), (0.52, 0.48, 0.42))  # greenish, violet, undyed


class Fabric(Drawing):
    """Fabric that fills the image; phase, rotation, stretch and brightness of the yarns vary."""

    defects = ("colour", "hole", "stain", "thread")

    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        weave = _Weave(canvas, rng)
        kind = defect.kind if defect else "good"
        if defect and kind == "hole":
            weave.push_aside(canvas, defect)
        weave.lay()
        if defect and kind == "colour":
            weave.misdye(defect)
        if defect and kind == "thread":
            weave.miss_thread(defect)
        light = weave.light()
        if defect and kind == "hole":
            weave.tear(canvas, light, defect)
        if defect and kind == "stain":
            _stain(canvas, light, defect)
        return light


class _Weave:
    """The weave in yarn coordinates (u, v): warp yarns are numbered by u, weft yarns by v."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        stretch = rng.uniform(0.985, 1.015, 2).tolist()
        self.u, self.v = canvas.frame(rng.uniform(-0.035, 0.035), *rng.uniform(102, 154, 2).tolist())
        self.u = self.u * (stretch[0] / PITCH) + 0.18 * canvas.smooth_noise(rng, 5)
        self.v = self.v * (stretch[1] / PITCH) + 0.18 * canvas.smooth_noise(rng, 5)
        self.tone = rng.uniform(0.95, 1.05, 256).astype(np.float32)  # brightness of each yarn: 128 warp, 128 weft
        self.thin = rng.uniform(1.86, 2.10, 256).astype(np.float32)  # thickness of each yarn
        self.lean = rng.uniform(-0.3, 0.3)  # direction of the illumination
        self.fluff = 0.99 + 0.035 * canvas.smooth_noise(rng, 3) + 0.09 * canvas.pixel_noise(rng)
        self.dye: np.ndarray | None = None  # 0 to 1: weight of the wrong colour in the warp
        self.wrong = WARP
        self.hole = (0.0, 0.0, 1.0)

    def lay(self) -> None:
        """Compute the top yarn of each pixel and the pixel's position on the yarn's float."""
        i, j = np.floor(self.u), np.floor(self.v)
        a, b = self.u - i, self.v - j
        i, j = i.astype(np.int32), j.astype(np.int32)
        step = (i + j) & 3  # 2/2 twill: over two, under two
        self.warp = step < 2
        self.yarn = np.where(self.warp, i & 127, j & 127 | 128).astype(np.intp)
        self.side = np.where(self.warp, a, b)
        self.along = a + b - self.side + (step & 1).astype(np.float32) - 1  # -1 to 1 along the float
        self.side -= 0.5
        self.side *= self.thin.take(self.yarn)  # -1 to 1 across the yarn
        self.fluff *= self.tone.take(self.yarn)

    def light(self) -> np.ndarray:
        """Return the radiance (3, 2S, 2S): twisted cylinders lit from one side, over a dark background."""
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

    def misdye(self, defect: Defect) -> None:
        """Give a stretch of one to three warp yarns another colour."""
        self.dye = self._stretch(defect, 50, 110) * np.float32(0.55 + 0.45 * defect.severity)
        self.wrong = WRONG_YARN[int(defect.rng.integers(len(WRONG_YARN)))]

    def miss_thread(self, defect: Defect) -> None:
        """Remove a stretch of a warp yarn: the weft shows where it lay on top."""
        area = self._stretch(defect, 44, 130)
        self.warp = self.warp & ~area
        across, under = (self.u - np.floor(self.u) - 0.5)[area], (self.v - np.floor(self.v) - 0.5)[area]
        self.side[area], self.along[area] = 2 * under, across
        self.fluff[area] *= 0.66 + 0.24 * defect.severity  # it lies deeper, so it is darker

    def push_aside(self, canvas: Canvas, defect: Defect) -> None:
        """Displace the yarns around a hole."""
        x, y = defect.rng.uniform(40, 216, 2).tolist()
        radius = 3.8 + 7.0 * defect.severity * defect.rng.uniform(0.8, 1.1)
        self.hole = (x, y, radius)
        dx, dy = canvas.frame(0, x, y)
        pull = (1 - (dx * dx + dy * dy) / (1.7 * radius) ** 2).clip(0, 1)
        pull *= pull * (0.4 / PITCH)
        self.u = self.u - pull * dx
        self.v = self.v - pull * dy

    def tear(self, canvas: Canvas, light: np.ndarray, defect: Defect) -> None:
        """Render the hole: a frayed rim and a few broken yarn ends."""
        x, y, radius = self.hole
        fray = (self.tone.take(self.yarn) - 1) * (7.0 * radius)
        rim = canvas.spot_distance(defect.rng, (x, y), radius, 0.2) + fray
        paint(light, GAP, canvas.coverage(rim, 6.0) * 0.4)
        paint(light, TABLE, canvas.coverage(rim + 0.5, 1.5) * 0.95)
        for _ in range(1 + round(3 * defect.severity)):
            angle, bow = defect.rng.uniform(0, 2 * np.pi), defect.rng.uniform(0.5, 1.0)
            root = (x + bow * radius * np.cos(angle), y + bow * radius * np.sin(angle))
            path = random_path(defect.rng, root, angle + defect.rng.uniform(-0.9, 0.9), radius * 1.1, 0.5, 6)
            paint(light, WEFT if defect.rng.integers(2) else WARP, canvas.stroke(path, 1.1, 1.0) * 0.7)

    def _stretch(self, defect: Defect, short: float, long: float) -> np.ndarray:
        """Return (2S, 2S) bool: a stretch of warp yarns, ``short`` to ``long`` units long."""
        first, middle = defect.rng.integers(-9, 9), defect.rng.uniform(-9, 9)
        reach = (short + (long - short) * defect.severity * defect.rng.uniform(0.7, 1.0)) / 2 / PITCH
        many = 1 + int(defect.kind == "colour" and defect.rng.integers(0, 2) + (defect.severity > 0.6))
        number = np.floor(self.u)
        return self.warp & (number >= first) & (number < first + many) & (np.abs(self.v - middle) < reach)


def _stain(canvas: Canvas, light: np.ndarray, defect: Defect) -> None:
    """Render a stain of oil or rust with a darker rim."""
    x, y = defect.rng.uniform(36, 220, 2).tolist()
    radius = 8 + 16 * defect.rng.uniform(0.7, 1.1) * (0.4 + 0.6 * defect.severity)
    rim = canvas.spot_distance(defect.rng, (x, y), radius, 0.35)
    wet = canvas.coverage(rim, 3.0) * (0.8 + 0.25 * (1 - rim * rim / 20).clip(0, 1))
    paint(light, OIL if defect.rng.integers(2) else RUST, wet * (0.24 + 0.38 * defect.severity))
