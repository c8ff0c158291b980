"""A printed circuit board: one fixed layout; components are placed with small random errors."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from iadbe.drawing import Canvas, Defect, Drawing, canvas_of, paint, random_path

VIEW = 0.86  # board units (256 along a side) per image unit
POUR, BARE_GREEN, TRACE = (0.07, 0.40, 0.25), (0.03, 0.25, 0.16), (0.11, 0.47, 0.29)
TIN, GOLD, DARK, SILK = (0.74, 0.75, 0.76), (0.83, 0.68, 0.36), (0.05, 0.05, 0.06), (0.90, 0.92, 0.88)
BLACK, TAN, CERAMIC, STEEL = (0.13, 0.13, 0.14), (0.66, 0.50, 0.34), (0.86, 0.85, 0.78), (0.78, 0.79, 0.80)
COPPER, SHADOW, LASER = (0.76, 0.50, 0.32), (0.01, 0.06, 0.04), (0.50, 0.50, 0.49)


class _Part(NamedTuple):
    name: str
    style: str  # kind of package: chip, block (two ends), can, lamp, crystal, header
    x: float
    y: float
    quarter_turns: float
    half_length: float  # along its own u
    half_width: float
    colour: tuple[float, float, float] = BLACK
    mark: str = ""
    pins: int = 0  # per side with pins
    sides: int = 2
    pitch: float = 0.0


PARTS = (
    _Part("U1", "chip", 108, 116, 0, 31, 31, BLACK, "IA100", pins=9, sides=4, pitch=6.2),
    _Part("U2", "chip", 198, 60, 0, 13, 19, BLACK, "E25", pins=4, pitch=9.0),
    _Part("Y1", "crystal", 106, 44, 0, 20, 8, STEEL, "16000"),
    _Part("C3", "can", 56, 194, 0, 17, 17, STEEL, "47"),
    _Part("J1", "header", 150, 212, 0, 36, 7, pins=6),
    _Part("R1", "block", 194, 106, 0, 9, 5, BLACK, "103"),
    _Part("R2", "block", 194, 122, 0, 9, 5, BLACK, "103"),
    _Part("R3", "block", 194, 138, 0, 9, 5, BLACK, "472"),
    _Part("R4", "block", 194, 154, 0, 9, 5, BLACK, "472"),
    _Part("C1", "block", 46, 50, 1, 8, 5, TAN),
    _Part("C2", "block", 66, 50, 1, 8, 5, TAN),
    _Part("R5", "block", 36, 106, 1, 8, 5, BLACK, "220"),
    _Part("C4", "block", 36, 138, 1, 8, 5, TAN),
    _Part("D1", "lamp", 208, 182, 0, 9, 6, CERAMIC),
    _Part("C5", "block", 160, 178, 0, 8, 5, TAN),
)
FROM_SMALL = ("C4", "R5", "R3", "R1", "C2", "C5", "D1", "C1", "R4", "Y1", "U2", "C3")
PRINTS = (  # text, centre, height of one dot
    ("IADBE-7", 112, 185, 1.25),
    ("REV B", 92, 197, 0.95),
    ("5V GND TX RX", 150, 230, 0.8),
    ("U1", 160, 72, 0.95),
    ("U2", 198, 91, 0.95),
    ("Y1", 141, 45, 0.95),
    ("C3", 56, 221, 0.95),
    ("R1", 217, 106, 0.85),
    ("R2", 217, 122, 0.85),
    ("R3", 217, 138, 0.85),
    ("R4", 217, 154, 0.85),
    ("C1", 46, 68, 0.85),
    ("C2", 66, 68, 0.85),
    ("R5", 36, 88, 0.85),
    ("C4", 36, 156, 0.85),
    ("D1", 208, 198, 0.85),
    ("C5", 160, 190, 0.85),
)
OPEN = ((44, 168), (120, 196), (176, 168), (150, 30), (70, 168), (160, 62), (44, 78), (178, 196), (216, 90))
ROWS = {  # font: seven rows of five dots, one base-32 digit per row
    "0": "ehjlphe", "1": "4c4444e", "2": "eh168gv", "3": "eh161he", "4": "26aiv22", "5": "vgu11he", "6": "68guhhe",
    "7": "v124888", "8": "ehhehhe", "9": "ehhf12c", "A": "ehhvhhh", "B": "uhhuhhu", "C": "ehggghe", "D": "uhhhhhu",
    "E": "vgguggv", "G": "ehgnhhf", "I": "e44444e", "J": "72222ic", "N": "hhpljhh", "R": "uhhukih", "T": "v444444",
    "U": "hhhhhhe", "V": "hhhhaa4", "X": "hha4ahh", "Y": "hha4444", "-": "000v000", " ": "0000000",
}  # fmt: skip


class Board(Drawing):
    """One layout; the pose of the board, the placement of components, lot numbers and the illumination vary."""

    defects = ("bent", "misprint", "missing", "scratch")

    def draw(self, canvas: Canvas, rng: np.random.Generator, defect: Defect | None) -> np.ndarray:
        angle, x, y = rng.uniform(-0.03, 0.03), rng.uniform(122, 134), rng.uniform(122, 134)
        empty = _empty_board(canvas.side // 2)
        u, v = (c * VIEW + 128 for c in canvas.frame(angle, x, y))
        *copper, silk = empty.at(u, v)
        if defect and defect.kind == "misprint":
            silk = _misprint(empty, silk, canvas, u, v, defect)
        light = np.stack(copper)
        paint(light, SILK, silk)
        if defect and defect.kind == "scratch":
            _scratch(canvas, light, defect, angle, (x, y))
        light *= 1 + 0.04 * canvas.smooth_noise(rng, 4) + 0.03 * canvas.pixel_noise(rng)
        defective = _defective_part(defect) if defect else ""
        for part in PARTS:
            dx, dy, tilt = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(-0.014, 0.014)
            tone, lot = rng.uniform(0.93, 1.07), int(rng.integers(1000, 9999))
            if defect and part.name == defective:
                if defect.kind == "missing":
                    continue
                dx, dy, tilt = _displace(defect, dx, dy, tilt)
            bx, by = (part.x - 128) / VIEW, (part.y - 128) / VIEW
            at = (x + bx * np.cos(angle) - by * np.sin(angle) + dx, y + by * np.cos(angle) + bx * np.sin(angle) + dy)
            _place(canvas, light, part, at, angle + tilt + part.quarter_turns * np.pi / 2, (tone, lot))
        return light


class _EmptyBoard:
    """The board without components, at twice the resolution of the canvas."""

    def __init__(self, light: np.ndarray, silk: np.ndarray) -> None:
        self.wide = len(silk)
        four = np.stack([*light, silk], axis=-1)
        self.dots = np.rint(four.clip(0, 1) * 255).astype(np.uint8).view(np.uint32).ravel()  # one integer per pixel

    def at(self, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
        """Sample the board at (u, v): red, green, blue and coverage of the silk print, each of the shape of ``u``."""
        point = (v * (self.wide / 256)).astype(np.int32)
        point *= self.wide
        point += (u * (self.wide / 256)).astype(np.int32)
        four = self.dots.take(point, mode="clip").view(np.uint8).reshape(*u.shape, 4)
        return [four[..., k] * np.float32((0.92 if k == 3 else 1) / 255) for k in range(4)]


def _defective_part(defect: Defect) -> str:
    """Return the component that is missing or misplaced; for a low severity a small one."""
    if defect.kind == "missing":
        return FROM_SMALL[min(len(FROM_SMALL) - 1, int(defect.severity * 8 + defect.rng.uniform(0, 4)))]
    return FROM_SMALL[int(defect.rng.integers(len(FROM_SMALL)))] if defect.kind == "bent" else ""


def _displace(defect: Defect, dx: float, dy: float, tilt: float) -> tuple[float, float, float]:
    """Rotate and shift a component beyond the placement tolerance."""
    side, direction = (1 if defect.rng.integers(2) else -1), defect.rng.uniform(0, 2 * np.pi)
    shift = 1.3 + 3.0 * defect.severity
    return dx + shift * np.cos(direction), dy + shift * np.sin(direction), tilt + side * (0.07 + 0.35 * defect.severity)


def _misprint(
    empty: _EmptyBoard, alpha: np.ndarray, canvas: Canvas, u: np.ndarray, v: np.ndarray, defect: Defect
) -> np.ndarray:
    """Render one label doubled, smeared or worn."""
    text, x, y, dot = PRINTS[int(defect.rng.integers(3))]
    area = (np.abs(u - x) < 3.2 * dot * len(text) + 3) & (np.abs(v - y) < 4.2 * dot + 2)
    shift, direction = (1.5 + 1.8 * defect.severity) * dot, defect.rng.uniform(0, 2 * np.pi)
    u, v, right = u[area], v[area], alpha[area]
    steps = [
        empty.at(u + k * shift * np.cos(direction).item(), v + k * shift * np.sin(direction).item())[3]
        for k in range(1, 4)
    ]
    way = int(defect.rng.integers(3))
    if way == 0:  # doubled
        wrong = np.maximum(right, steps[0] * (0.6 + 0.4 * defect.severity))
    elif way == 1:  # smeared
        wrong = (right * 0.6 + steps[0] + steps[1] * 0.7 + steps[2] * 0.5) * (0.65 - 0.15 * defect.severity)
    else:  # worn
        worn = (canvas.smooth_noise(defect.rng, 24)[area] * 0.7 + 0.5 + 0.6 * defect.severity).clip(0, 1)
        wrong = right * (1 - 0.92 * worn)
    alpha[area] = wrong
    return alpha


def _scratch(canvas: Canvas, light: np.ndarray, defect: Defect, angle: float, at: tuple[float, float]) -> None:
    """Render a scratch in the solder mask: a pale border and exposed copper."""
    bx, by = (np.array(OPEN[int(defect.rng.integers(len(OPEN)))]) - 128) / VIEW
    point = (at[0] + bx * np.cos(angle) - by * np.sin(angle), at[1] + by * np.cos(angle) + bx * np.sin(angle))
    path = random_path(defect.rng, point, defect.rng.uniform(0, np.pi), 22 + 50 * defect.rng.uniform(0.3, 1), 0.12)
    width = (0.8 + 1.0 * defect.severity) * defect.rng.uniform(0.6, 1.1, len(path))
    paint(light, SILK, canvas.stroke(path, width + 0.9, 1.2) * (0.12 + 0.14 * defect.severity))
    paint(light, COPPER, canvas.stroke(path, width, 0.8) * (0.26 + 0.55 * defect.severity))


def _box(u: np.ndarray, v: np.ndarray, wide: float, high: float, corner: float = 0.0) -> np.ndarray:
    """Return the signed distance to a rounded rectangle with these half sides."""
    a, b = np.abs(u) - (wide - corner), np.abs(v) - (high - corner)
    out = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    return out + np.minimum(np.maximum(a, b), 0) - corner


def _norm(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v)  # np.hypot in float32 differs between machines


def _place(
    canvas: Canvas, light: np.ndarray, part: _Part, at: tuple[float, float], angle: float, own: tuple[float, int]
) -> None:
    """Render one component with its pins and its shadow."""
    wide, high = part.half_length / VIEW, part.half_width / VIEW
    c, s = np.cos(angle).item(), np.sin(angle).item()
    area = canvas.window(*at, abs(c) * wide + abs(s) * high + 9, abs(s) * wide + abs(c) * high + 9)
    below = light[:, *area]
    u, v = canvas.frame(angle, *at, area)
    outline = _box(u - 2.4 * c - 2.8 * s, v - 2.8 * c + 2.4 * s, wide, high, 2)
    if part.style == "can":
        outline = _norm(u - 2.8 * c, v - 3.2 * c) - wide
    paint(below, SHADOW, canvas.coverage(outline, 4.5) * 0.55)
    colour = tuple(level * own[0] for level in part.colour)
    if part.style == "chip":
        _legs(canvas, below, part, u, v)
        _slab(canvas, below, _box(u, v, wide, high, 1.2), u, v, colour, 2.2)
        paint(below, DARK, canvas.coverage(_norm(u + wide - 6, v + high - 6) - 2.2, 0.8) * 0.7)
        paint(below, LASER, lettering(part.mark, u, v + 4, 0.95) * 0.75)
        paint(below, LASER, lettering(str(own[1]), u, v - 6, 0.85) * 0.6)
    elif part.style in ("block", "lamp"):
        _slab(canvas, below, _box(u, v, wide, high, 1.0), u, v, TIN, 2.0)
        _slab(canvas, below, _box(u, v, wide * 0.62, high, 0.4), u, v, colour, 1.6)
        if part.style == "lamp":
            _dome(canvas, below, _norm(u, v) - high * 0.72, u, v, (0.93, 0.90, 0.55))
        elif part.mark:
            paint(below, SILK, lettering(part.mark, u, v, 0.52) * 0.75)
    elif part.style == "can":
        _dome(canvas, below, _norm(u, v) - wide, u, v, colour)
        paint(below, BLACK, canvas.coverage(np.maximum(_norm(u, v) - wide + 2.2, u + wide * 0.52), 0.8) * 0.9)
        paint(below, BLACK, lettering(part.mark, u - 3, v, 1.0) * 0.7)
    elif part.style == "crystal":
        _slab(canvas, below, _box(u, v, wide, high, high), u, v, colour, 4.0)
        paint(below, BLACK, lettering(part.mark, u, v, 0.75) * 0.55)
    else:
        _header(canvas, below, part, u, v)


def _slab(
    canvas: Canvas,
    below: np.ndarray,
    shape: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    colour: tuple[float, ...],
    bevel: float,
) -> None:
    """Render a solid with a bevelled rim, lit from the upper left."""
    rim = (1 + shape * (1 / bevel)).clip(0, 1)
    rise = np.zeros_like(shape)
    rise[1:] += shape[:-1] - shape[1:]
    rise[:, 1:] += shape[:, :-1] - shape[:, 1:]
    level = 1 + rim * (rise * (0.30 / canvas.unit)) - 0.004 * (u + v)
    alpha = canvas.coverage(shape)
    for plane, tone in zip(below, colour, strict=True):
        plane += alpha * (level * float(tone) + rim * 0.03 - plane)


def _dome(
    canvas: Canvas, below: np.ndarray, shape: np.ndarray, u: np.ndarray, v: np.ndarray, colour: tuple[float, ...]
) -> None:
    """Render a round body with a raised, specular rim."""
    _slab(canvas, below, shape, u, v, colour, 3.0)
    paint(below, DARK, canvas.coverage(np.abs(shape + 3.4) - 0.3, 1.0) * 0.35)
    shine = (1 - ((u + 4) ** 2 + (v + 5) ** 2) * (1 / 60)).clip(0, 1)
    paint(below, (1.0, 1.0, 0.98), shine * shine * 0.35)


def _legs(canvas: Canvas, below: np.ndarray, part: _Part, u: np.ndarray, v: np.ndarray) -> None:
    """Render the pins on two or four sides of a chip."""
    pitch, half = part.pitch / VIEW, (part.pins - 1) / 2
    out, along = np.abs(u), v
    if part.sides == 4:  # a square chip
        out, along = np.maximum(out, np.abs(v)), np.where(out > np.abs(v), v, u)
    out -= part.half_length / VIEW + 2.4
    number = np.rint(along * (1 / pitch) + half).clip(0, 2 * half) - half
    leg = _box(along - number * pitch, out, 1.55, 3.2, 0.4)
    level = 0.86 - 0.06 * out
    paint(below, SHADOW, canvas.coverage(leg - 0.6, 2.0) * 0.4)
    alpha = canvas.coverage(leg)
    for plane, tone in zip(below, TIN, strict=True):
        plane += alpha * (level * tone - plane)


def _header(canvas: Canvas, below: np.ndarray, part: _Part, u: np.ndarray, v: np.ndarray) -> None:
    """Render a pin header: gold pins in black housings."""
    pitch, half = 2 * part.half_length / VIEW / part.pins, (part.pins - 1) / 2
    number = np.rint(u * (1 / pitch) + half).clip(0, 2 * half) - half
    a = u - number * pitch
    _slab(canvas, below, _box(a, v, pitch / 2, part.half_width / VIEW, 2.5), a, v, BLACK, 2.0)
    _slab(canvas, below, _box(a, v, 2.3, 2.3, 0.3), a, v, GOLD, 1.5)


def lettering(text: str, u: np.ndarray, v: np.ndarray, dot: float) -> np.ndarray:
    """Return the coverage of a line of text centred at the origin, with dots of this many units."""
    digits = np.array([[int(digit, 32) for digit in ROWS[letter]] for letter in text])  # (letters, 7)
    dots = np.pad(digits.T[:, :, None] >> np.arange(4, -1, -1) & 1, ((0, 0), (0, 0), (0, 1))).reshape(7, -1)
    wide = dots.shape[1]
    area = (np.abs(u) < (wide / 2) * dot) & (np.abs(v) < 3.5 * dot)
    alpha = np.zeros(area.shape, np.float32)
    column, row = u[area] * (1 / dot) + wide / 2, v[area] * (1 / dot) + 3.5
    alpha[area] = dots[row.astype(np.intp).clip(0, 6), column.astype(np.intp).clip(0, wide - 1)]
    return alpha


@cache
def _empty_board(size: int) -> _EmptyBoard:
    """Render the board without components, at twice the resolution of the canvas."""
    canvas = canvas_of(2 * size)
    light = np.stack([np.full((canvas.side, canvas.side), tone, np.float32) for tone in POUR])
    gap, trace = np.zeros_like(light[0]), np.zeros_like(light[0])
    for path in _traces():
        canvas.stroke(path, 4.4, 0, gap)
        canvas.stroke(path, 1.9, 0, trace)
    pads = [pad for part in PARTS for pad in _pads(part)]
    for x, y, wide, high in pads:
        area = canvas.window(x, y, wide + high + 4)
        shape = _box(canvas.x[:, area[1]] - x, canvas.y[area[0]] - y, wide, high, 0.8).astype(np.float32)
        gap[area] = np.maximum(gap[area], canvas.coverage(shape - 1.6))
        trace[area] = np.maximum(trace[area] * (shape > 1.6), 0)
    paint(light, BARE_GREEN, gap)
    paint(light, TRACE, trace)
    for x, y, wide, high in pads:
        area = canvas.window(x, y, wide + high + 4)
        a, b = (canvas.x[:, area[1]] - x).astype(np.float32), (canvas.y[area[0]] - y).astype(np.float32)
        _slab(canvas, light[:, *area], _box(a, b, wide, high, 0.8), a, b, TIN, 1.2)
    silk = _silk(canvas)
    taken = ndimage.uniform_filter(gap + silk, round(7 / canvas.unit)) > 1e-3
    grid = [(x, y) for x in range(12, 256, 20) for y in range(14, 256, 20)]
    ends = [tuple(path[-1]) for path in _traces()]
    for x, y in ends + [(x, y) for x, y in grid if not taken[int(y / canvas.unit), int(x / canvas.unit)]]:
        _via(canvas, light, x, y, 2.0)
    _via(canvas, light, 30, 28, 9)
    _via(canvas, light, 226, 226, 9)
    silk *= np.abs(light[0] - POUR[0]) < 0.1  # no print on metal
    return _EmptyBoard(light, silk)


def _via(canvas: Canvas, light: np.ndarray, x: float, y: float, radius: float) -> None:
    area = canvas.window(x, y, radius + 3)
    away = np.hypot(canvas.x[:, area[1]] - x, canvas.y[area[0]] - y).astype(np.float32)
    paint(light[:, *area], BARE_GREEN, canvas.coverage(away - radius - 1.0))
    paint(light[:, *area], GOLD, canvas.coverage(away - radius) * 0.85)
    paint(light[:, *area], DARK, canvas.coverage(away - 0.5 * radius))


def _pads(part: _Part) -> list[tuple[float, float, float, float]]:
    """Return the pads of a component: centre and half sides, in board units."""
    if part.style == "chip":
        places = [(k - (part.pins - 1) / 2) * part.pitch for k in range(part.pins)]
        pads = [(part.x + s * (part.half_length + 4), part.y + p, 4.2, 1.7) for p in places for s in (-1, 1)]
        more = [(part.x + p, part.y + s * (part.half_width + 4), 1.7, 4.2) for p in places for s in (-1, 1)]
        return pads + (more if part.sides == 4 else [])
    if part.style == "header":
        pitch = 2 * part.half_length / part.pins
        return [(part.x + (k - (part.pins - 1) / 2) * pitch, part.y, 4, 4) for k in range(part.pins)]
    if part.style == "can":
        return [(part.x - 13, part.y, 6, 4), (part.x + 13, part.y, 6, 4)]
    reach = part.half_length - 0.5
    if part.quarter_turns:
        return [(part.x, part.y - reach, part.half_width + 1, 4), (part.x, part.y + reach, part.half_width + 1, 4)]
    return [(part.x - reach, part.y, 4, part.half_width + 1), (part.x + reach, part.y, 4, part.half_width + 1)]


def _traces() -> list[np.ndarray]:
    """Return the copper traces, each from a pad to a via."""
    paths = []
    chip = PARTS[0]
    for k in range(chip.pins):
        p = (k - (chip.pins - 1) / 2) * chip.pitch
        start, spread = chip.half_length + 6, p * 0.45
        lead = 4 + 0.45 * (chip.pins // 2 * chip.pitch - abs(p))
        end = start + lead + abs(spread) + 3 + 5 * (k % 2)
        for way in range(4):
            line = np.array(
                [(start, p), (start + lead, p), (start + lead + abs(spread), p + spread), (end, p + spread)]
            )
            sign = 1 if way % 2 else -1
            line = line * (sign, 1)
            paths.append((line if way < 2 else line[:, ::-1]) + (chip.x, chip.y))
    for y in (106, 122, 138, 154):
        paths.append(np.array([(203, y), (226, y), (230, y + 4), (230, y + 9)], float))
        paths.append(np.array([(185, y), (176, y), (172, y + 4), (172, y + 8)], float))
    for k in range(4):
        p, aside = 60 + (k - 1.5) * 9, 4 if k > 1 else -4
        paths.append(np.array([(215, p), (224, p), (228, p + aside), (234, p + aside)]))
        paths.append(np.array([(181, p), (172 - 3 * k, p), (168 - 3 * k, p - 4), (168 - 3 * k, 36 - 4 * (k % 2))]))
    for k in range(6):
        x = 120 + 12 * k
        y = 203 - 2 * (k % 3)
        paths.append(np.array([(x, 212), (x, y), (x + 4, y - 4), (x + 4, y - 8)], float))
    return paths


def _silk(canvas: Canvas) -> np.ndarray:
    """Return the coverage of the silk print: labels, outlines, pin marks."""
    silk = np.zeros((canvas.side, canvas.side), np.float32)
    for text, x, y, dot in PRINTS:
        area = canvas.window(x, y, 3 * dot * len(text) + 3)
        u, v = np.broadcast_arrays(canvas.x[:, area[1]] - x, canvas.y[area[0]] - y)
        silk[area] = np.maximum(silk[area], lettering(text, u, v, dot))
    for part in PARTS:
        wide, high = (part.half_width, part.half_length) if part.quarter_turns else (part.half_length, part.half_width)
        margin = 11 if part.style == "chip" else 5.5
        area = canvas.window(part.x, part.y, max(wide, high) + 20)
        u, v = (canvas.x[:, area[1]] - part.x).astype(np.float32), (canvas.y[area[0]] - part.y).astype(np.float32)
        frame = _box(u, v, wide + margin, high + (margin if part.sides == 4 else 5.5), 1.5)
        if part.style == "can":
            frame = _norm(u, v) - wide - 3
        corner = (np.abs(u) > 0.45 * wide) & (np.abs(v) > 0.45 * high) if part.style == "chip" else True
        silk[area] = np.maximum(silk[area], canvas.coverage(np.abs(frame) - 0.45) * corner)
    return silk
