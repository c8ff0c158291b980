"""A zinc-plated lock washer with twelve twisted teeth on a rubber mat."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Canvas, Defect, Drawing, paint, random_path

TEETH = 12
BORE, RING, TIP = 36.0, 61.0, 82.0  # radii in units
ZINC = (0.98, 0.97, 0.93)
MAT = (0.27, 0.31, 0.36)
SHADE = (0.05, 0.06, 0.08)
RUST = (0.45, 0.24, 0.10)


class Washer(Drawing):
    """One washer near the centre; position, rotation, size, teeth, illumination and mat vary."""

    defects = ("bent", "crack", "missing", "stain")

    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        x, y = rng.uniform(112, 144, 2).tolist()
        spin, scale, lamp = rng.uniform(0, 2 * np.pi), rng.uniform(0.97, 1.03), rng.uniform(0.5, 1.1)
        area = canvas.window(x, y, TIP * scale + 14)
        u, v = canvas.frame(spin, x, y, area)
        part = _Part(rng, u * (1 / scale), v * (1 / scale), lamp - spin)
        if defect and defect.kind == "bent":
            part.bend(defect)
        if defect and defect.kind == "missing":
            part.break_off(canvas.smooth_noise(defect.rng, 48, area), defect)
        part.shape()
        light = _mat(canvas, rng)
        ground = light[:, *area]
        shift = (round(5 * np.sin(lamp) / canvas.unit), round(5 * np.cos(lamp) / canvas.unit))
        paint(ground, SHADE, canvas.coverage(np.roll(part.distance, shift, (0, 1)) - 1, 9.0) * 0.6)
        paint(ground, SHADE, canvas.coverage(part.distance - 1, 4.0) * 0.3)
        level = part.level(
            0.045 * canvas.smooth_noise(rng, 6, area) + 0.05 * canvas.pixel_noise(rng, area), rng, lamp, canvas.unit
        )
        face = np.stack([level * tone for tone in (ZINC + rng.uniform(-0.012, 0.012, 3)).tolist()])
        if defect and defect.kind == "crack":
            paint(face, SHADE, _crack(canvas, defect, (x, y), spin, scale)[area])
        if defect and defect.kind == "stain":
            paint(face, RUST, _rust(canvas, defect, (x, y))[area])
        metal = canvas.coverage(part.distance * scale)
        ground += metal * (face - ground)
        return light


class _Part:
    """The washer in its own frame: (u, v) from its centre, angles from its first tooth."""

    def __init__(self, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, lamp: float) -> None:
        self.u, self.v = u, v
        self.lamp = (np.cos(lamp).item(), np.sin(lamp).item())  # in this frame
        self.radius = np.sqrt(u * u + v * v + 1e-3)
        angle = (np.arctan2(v.astype(np.float64), u) * (TEETH / (2 * np.pi))).astype(np.float32)  # in teeth
        nearest = np.rint(angle)
        self.aside = (angle - nearest) * self.radius * (2 * np.pi / TEETH)  # units from the tooth's centre line
        self.tooth = np.where(nearest < 0, nearest + TEETH, nearest).astype(np.intp)  # -6 becomes 6
        self.skew = rng.uniform(-0.03, 0.03, TEETH).astype(np.float32)
        self.long = rng.uniform(TIP - 0.7, TIP + 0.7, TEETH).astype(np.float32)
        self.twist = rng.uniform(0.85, 1.15, TEETH).astype(np.float32)
        self.chip: np.ndarray | None = None

    def bend(self, defect: Defect) -> None:
        """Bend one tooth sideways and out of its twist."""
        k, way = int(defect.rng.integers(TEETH)), 1 if defect.rng.integers(2) else -1
        self.skew[k] += way * (0.10 + 0.42 * defect.severity)
        self.long[k] -= 1.0 + 4 * defect.severity
        self.twist[k] = 0.7 - 1.6 * defect.severity

    def break_off(self, rough: np.ndarray, defect: Defect) -> None:
        """Break off the tip of one tooth, or all of it, along a rough edge."""
        k = int(defect.rng.integers(TEETH))
        left = TIP - 3.5 - (TIP - RING - 2) * defect.severity * defect.rng.uniform(0.8, 1.0)
        self.chip = np.where((self.tooth == k) & (self.radius > RING), self.radius - left - 1.6 * rough, -TIP)

    def shape(self) -> None:
        """Compute the signed distance to the outline, a smooth union of ring and teeth."""
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
        """Return the brightness of the metal: face, twisted teeth, rounded edges."""
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
        facing = np.zeros_like(bevel)  # slope of the outline towards the light
        facing[1:] = (self.distance[:-1] - self.distance[1:]) * (np.sin(lamp) / unit).item()
        facing[:, 1:] += (self.distance[:, :-1] - self.distance[:, 1:]) * (np.cos(lamp) / unit).item()
        level += bevel * (facing * 0.38 - 0.04)
        return level.clip(0, 1.15)


def _crack(canvas: Canvas, defect: Defect, at: tuple[float, float], spin: float, scale: float) -> np.ndarray:
    """Return the coverage of a crack from the bore outwards; at severity 1 through the whole ring."""
    angle = spin + defect.rng.uniform(0, 2 * np.pi)
    length = (9 + (RING - BORE - 6) * defect.severity) * scale
    path = random_path(defect.rng, (0, 0), angle + defect.rng.uniform(-0.35, 0.35), length, 0.45, 9)
    root = np.array(at) + BORE * scale * np.array([np.cos(angle), np.sin(angle)])
    widths = np.linspace(1.6 + 1.2 * defect.severity, 0.5 + 0.6 * defect.severity, len(path))
    return canvas.stroke(path - path[0] + root, widths, 0.6) * (0.5 + 0.42 * defect.severity)


def _rust(canvas: Canvas, defect: Defect, at: tuple[float, float]) -> np.ndarray:
    """Return the coverage of a rust patch with a speckled rim."""
    angle, reach = defect.rng.uniform(0, 2 * np.pi), defect.rng.uniform(BORE + 6, RING - 2)
    point = (at[0] + reach * np.cos(angle), at[1] + reach * np.sin(angle))
    radius = 4 + 8 * defect.severity * defect.rng.uniform(0.7, 1.1)
    rim, area = canvas.spot_distance(defect.rng, point, radius, 0.35), canvas.window(*point, 2 * radius + 8)
    rim[area] += 2.0 * canvas.smooth_noise(defect.rng, 80, area)
    alpha = canvas.coverage(rim, 2.5) * (0.22 + 0.5 * defect.severity)
    alpha[area] *= 0.9 + 0.3 * canvas.pixel_noise(defect.rng, area)
    return alpha


def _mat(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Return the radiance of the mat."""
    level = (
        1 + 0.07 * canvas.smooth_noise(rng, 4) + 0.05 * canvas.smooth_noise(rng, 60) + 0.10 * canvas.pixel_noise(rng)
    )
    return np.stack([level * tone for tone in MAT])
