"""A panel of soldered pads in many rows: its defects are far smaller than the image."""

from __future__ import annotations

import numpy as np

from iadbe.drawing import Canvas, Defect, Drawing, paint

PITCH = 10.0  # units from pad to pad
PADS = 24  # along each side
RADIUS = 2.7  # of a pad, in units
MASK, TRACE, TIN, SHINE, HOLE = (0.06, 0.36, 0.24), (0.10, 0.46, 0.30), (0.70, 0.71, 0.73), (0.95,) * 3, (0.09,) * 3


class Panel(Drawing):
    """Pads differ in place, size, brightness and sheen. A defect covers less than a thousandth of the image."""

    defects = ("bridge", "pinhole")
    fine = True

    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        angle, x, y = rng.uniform(-0.012, 0.012), rng.uniform(126, 130), rng.uniform(126, 130)
        places = rng.uniform(-0.35, 0.35, (2, PADS, PADS)).astype(np.float32)
        u, v = canvas.frame(angle, x, y)
        light = np.empty((3, canvas.side, canvas.side), np.float32)
        light[:] = np.array(MASK, np.float32)[:, None, None]
        self._pads(canvas, rng, light, (u, v), places)
        light *= 1 + 0.03 * canvas.smooth_noise(rng, 6) + 0.03 * canvas.pixel_noise(rng)
        if defect:
            row, column = (int(i) for i in defect.rng.integers(2, PADS - 2, 2))
            across, down = (float(p) for p in _middle(column, row) + places[:, row, column])
            turn = np.array([np.cos(angle), np.sin(angle)])
            at = (x + across * turn[0] - down * turn[1], y + down * turn[0] + across * turn[1])
            (_bridge if defect.kind == "bridge" else _pinhole)(canvas, light, defect, at, angle)
        return light

    def _pads(
        self,
        canvas: Canvas,
        rng: np.random.Generator,
        light: np.ndarray,
        frame: tuple[np.ndarray, np.ndarray],
        places: np.ndarray,
    ) -> None:
        """Paint traces and pads."""
        tone, size = (rng.uniform(*ends, (PADS, PADS)).astype(np.float32) for ends in ((0.85, 1.08), (0.92, 1.06)))
        sheen = rng.uniform(-1.2, 1.2, (2, PADS, PADS)).astype(np.float32)
        column, row = (np.floor(c / PITCH + PADS / 2).astype(np.int16).clip(0, PADS - 1) for c in frame)
        pad = row.astype(np.intp) * PADS + column
        u, v = (c - (n - PADS / 2 + 0.5) * np.float32(PITCH) for c, n in zip(frame, (column, row), strict=True))
        u -= places[0].take(pad)
        v -= places[1].take(pad)
        narrow = np.where((row + column) % 3 == 0, v, u)  # every pad has a trace, along its row or its column
        paint(light, TRACE, canvas.coverage(np.abs(narrow) - 0.45))
        cover = canvas.coverage(np.sqrt(u * u + v * v) - RADIUS * size.take(pad), 0.25)
        paint(light, TIN, cover)
        light *= 1 + cover * (tone.take(pad) - 1)
        u -= sheen[0].take(pad)
        v -= sheen[1].take(pad)
        paint(light, SHINE, canvas.coverage(np.sqrt(u * u + v * v) - 0.5, 0.8) * 0.6)


def _middle(column: int, row: int) -> np.ndarray:
    """Return the place of a pad in units from the middle of the panel."""
    return (np.array([column, row], np.float32) - PADS / 2 + 0.5) * PITCH


def _bridge(canvas: Canvas, light: np.ndarray, defect: Defect, at: tuple[float, float], angle: float) -> None:
    """Paint a thread of solder from a pad to the next one in its row."""
    steps = np.linspace(0, PITCH, 7)
    bend = np.concatenate([[0], defect.rng.uniform(-0.5, 0.5, 5), [0]])
    c, s = np.cos(angle), np.sin(angle)
    path = np.array(at) + np.stack([steps * c - bend * s, bend * c + steps * s], 1)
    area = canvas.window(at[0] + PITCH / 2, at[1], PITCH)
    thread = canvas.stroke(path, 0.35 + 0.45 * defect.severity, 0.15)[area]
    paint(light[:, *area], TIN, thread * np.float32(0.9))


def _pinhole(canvas: Canvas, light: np.ndarray, defect: Defect, at: tuple[float, float], angle: float) -> None:
    """Paint a hole in the solder of a pad."""
    aside = defect.rng.uniform(-0.9, 0.9, 2)
    radius = 0.4 + 0.45 * defect.severity
    area = canvas.window(at[0], at[1], RADIUS + 1)
    x, y = canvas.x[:, area[1]] - at[0] - aside[0], canvas.y[area[0]] - at[1] - aside[1]
    away = np.sqrt(x * x + y * y).astype(np.float32)
    paint(light[:, *area], HOLE, canvas.coverage(away - radius, 0.2) * np.float32(0.9))
