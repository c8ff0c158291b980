"""A printed circuit board: copper, pads and silk print drawn once, parts placed by a machine that is a little off."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from iadbe.drawing import Drawing, Flaw, Paper, over, sheet, wander

VIEW = 0.86  # units of the board (256 across its sheet) in one unit of the image
POUR, BARE_GREEN, TRACE = (0.07, 0.40, 0.25), (0.03, 0.25, 0.16), (0.11, 0.47, 0.29)
TIN, GOLD, DARK, SILK = (0.74, 0.75, 0.76), (0.83, 0.68, 0.36), (0.05, 0.05, 0.06), (0.90, 0.92, 0.88)
BLACK, TAN, CERAMIC, STEEL = (0.13, 0.13, 0.14), (0.66, 0.50, 0.34), (0.86, 0.85, 0.78), (0.78, 0.79, 0.80)
COPPER, SHADOW, LASER = (0.76, 0.50, 0.32), (0.01, 0.06, 0.04), (0.50, 0.50, 0.49)


class _Part(NamedTuple):
    name: str
    look: str  # chip, block (two ends), can, lamp, crystal, header
    x: float
    y: float
    turn: float  # quarter turns
    wide: float  # half of its length, along its own u
    high: float
    colour: tuple[float, float, float] = BLACK
    mark: str = ""
    pins: int = 0  # of each side that has any
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
PRINTS = (  # text, middle, height of one dot
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
ROWS = {  # seven rows of five dots each, one base-32 digit a row
    "0": "ehjlphe", "1": "4c4444e", "2": "eh168gv", "3": "eh161he", "4": "26aiv22", "5": "vgu11he", "6": "68guhhe",
    "7": "v124888", "8": "ehhehhe", "9": "ehhf12c", "A": "ehhvhhh", "B": "uhhuhhu", "C": "ehggghe", "D": "uhhhhhu",
    "E": "vgguggv", "G": "ehgnhhf", "I": "e44444e", "J": "72222ic", "N": "hhpljhh", "R": "uhhukih", "T": "v444444",
    "U": "hhhhhhe", "V": "hhhhaa4", "X": "hha4ahh", "Y": "hha4444", "-": "000v000", " ": "0000000",
}  # fmt: skip


class Board(Drawing):
    """One product, always the same; its place, the placing of its parts, lot number and light vary."""

    defects = ("bent", "misprint", "missing", "scratch")

    def draw(self, paper: Paper, rng: np.random.Generator, flaw: Flaw | None) -> np.ndarray:
        turn, x, y = rng.uniform(-0.03, 0.03), rng.uniform(122, 134), rng.uniform(122, 134)
        bare = _bare(paper.wide // 2)
        u, v = (c * VIEW + 128 for c in paper.turned(turn, x, y))
        *copper, silk = bare.at(u, v)
        if flaw and flaw.kind == "misprint":
            silk = _misprint(bare, silk, paper, u, v, flaw)
        light = np.stack(copper)
        over(light, SILK, silk)
        if flaw and flaw.kind == "scratch":
            _scratch(paper, light, flaw, turn, (x, y))
        light *= 1 + 0.04 * paper.clouds(rng, 4) + 0.03 * paper.speckle(rng)
        amiss = _pick(flaw) if flaw else ""
        for part in PARTS:
            dx, dy, tilt = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(-0.014, 0.014)
            tone, lot = rng.uniform(0.93, 1.07), int(rng.integers(1000, 9999))
            if flaw and part.name == amiss:
                if flaw.kind == "missing":
                    continue
                dx, dy, tilt = _knock(flaw, dx, dy, tilt)
            bx, by = (part.x - 128) / VIEW, (part.y - 128) / VIEW
            at = (x + bx * np.cos(turn) - by * np.sin(turn) + dx, y + by * np.cos(turn) + bx * np.sin(turn) + dy)
            _place(paper, light, part, at, turn + tilt + part.turn * np.pi / 2, (tone, lot))
        return light


class _Bare:
    """The board without its parts, on a sheet twice as fine as the image's."""

    def __init__(self, light: np.ndarray, silk: np.ndarray) -> None:
        self.wide = len(silk)
        four = np.stack([*light, silk], axis=-1)
        self.dots = np.rint(four.clip(0, 1) * 255).astype(np.uint8).view(np.uint32).ravel()  # one number a dot

    def at(self, u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
        """Look up points of the board: red, green, blue and how much print covers them, each like ``u``."""
        spot = (v * (self.wide / 256)).astype(np.int32)
        spot *= self.wide
        spot += (u * (self.wide / 256)).astype(np.int32)
        four = self.dots.take(spot, mode="clip").view(np.uint8).reshape(*u.shape, 4)
        return [four[..., k] * np.float32((0.92 if k == 3 else 1) / 255) for k in range(4)]


def _pick(flaw: Flaw) -> str:
    """Name the part that is missing or askew: a small one if that is to be hard to see."""
    if flaw.kind == "missing":
        return FROM_SMALL[min(len(FROM_SMALL) - 1, int(flaw.force * 8 + flaw.rng.uniform(0, 4)))]
    return FROM_SMALL[int(flaw.rng.integers(len(FROM_SMALL)))] if flaw.kind == "bent" else ""


def _knock(flaw: Flaw, dx: float, dy: float, tilt: float) -> tuple[float, float, float]:
    """Turn and shift a part beyond what the machine's tolerance allows."""
    side, course = (1 if flaw.rng.integers(2) else -1), flaw.rng.uniform(0, 2 * np.pi)
    far = 1.3 + 3.0 * flaw.force
    return dx + far * np.cos(course), dy + far * np.sin(course), tilt + side * (0.07 + 0.35 * flaw.force)


def _misprint(bare: _Bare, ink: np.ndarray, paper: Paper, u: np.ndarray, v: np.ndarray, flaw: Flaw) -> np.ndarray:
    """Print one label doubled, smeared or worn; the rest as it should be."""
    text, x, y, dot = PRINTS[int(flaw.rng.integers(3))]
    there = (np.abs(u - x) < 3.2 * dot * len(text) + 3) & (np.abs(v - y) < 4.2 * dot + 2)
    far, course = (1.5 + 1.8 * flaw.force) * dot, flaw.rng.uniform(0, 2 * np.pi)
    u, v, right = u[there], v[there], ink[there]
    steps = [bare.at(u + k * far * np.cos(course).item(), v + k * far * np.sin(course).item())[3] for k in range(1, 4)]
    way = int(flaw.rng.integers(3))
    if way == 0:  # doubled
        wrong = np.maximum(right, steps[0] * (0.6 + 0.4 * flaw.force))
    elif way == 1:  # smeared
        wrong = (right * 0.6 + steps[0] + steps[1] * 0.7 + steps[2] * 0.5) * (0.65 - 0.15 * flaw.force)
    else:  # worn
        worn = (paper.clouds(flaw.rng, 24)[there] * 0.7 + 0.5 + 0.6 * flaw.force).clip(0, 1)
        wrong = right * (1 - 0.92 * worn)
    ink[there] = wrong
    return ink


def _scratch(paper: Paper, light: np.ndarray, flaw: Flaw, turn: float, at: tuple[float, float]) -> None:
    """The lacquer is scraped: pale where it only whitened, copper where it is gone."""
    bx, by = (np.array(OPEN[int(flaw.rng.integers(len(OPEN)))]) - 128) / VIEW
    spot = (at[0] + bx * np.cos(turn) - by * np.sin(turn), at[1] + by * np.cos(turn) + bx * np.sin(turn))
    path = wander(flaw.rng, spot, flaw.rng.uniform(0, np.pi), 22 + 50 * flaw.rng.uniform(0.3, 1), 0.12)
    width = (0.8 + 1.0 * flaw.force) * flaw.rng.uniform(0.6, 1.1, len(path))
    over(light, SILK, paper.stroke(path, width + 0.9, 1.2) * (0.12 + 0.14 * flaw.force))
    over(light, COPPER, paper.stroke(path, width, 0.8) * (0.26 + 0.55 * flaw.force))


def _box(u: np.ndarray, v: np.ndarray, wide: float, high: float, corner: float = 0.0) -> np.ndarray:
    """Return the signed distance to a rectangle of these half sides with rounded corners."""
    a, b = np.abs(u) - (wide - corner), np.abs(v) - (high - corner)
    out = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    return out + np.minimum(np.maximum(a, b), 0) - corner


def _away(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v)  # np.hypot is not the same everywhere in float32


def _place(
    paper: Paper, light: np.ndarray, part: _Part, at: tuple[float, float], turn: float, own: tuple[float, int]
) -> None:
    """Draw one part with its legs and its shadow."""
    wide, high = part.wide / VIEW, part.high / VIEW
    c, s = np.cos(turn).item(), np.sin(turn).item()
    there = paper.window(*at, abs(c) * wide + abs(s) * high + 9, abs(s) * wide + abs(c) * high + 9)
    below = light[:, *there]
    u, v = paper.turned(turn, *at, there)
    outline = _box(u - 2.4 * c - 2.8 * s, v - 2.8 * c + 2.4 * s, wide, high, 2)
    if part.look == "can":
        outline = _away(u - 2.8 * c, v - 3.2 * c) - wide
    over(below, SHADOW, paper.edge(outline, 4.5) * 0.55)
    colour = tuple(level * own[0] for level in part.colour)
    if part.look == "chip":
        _legs(paper, below, part, u, v)
        _slab(paper, below, _box(u, v, wide, high, 1.2), u, v, colour, 2.2)
        over(below, DARK, paper.edge(_away(u + wide - 6, v + high - 6) - 2.2, 0.8) * 0.7)
        over(below, LASER, lettering(part.mark, u, v + 4, 0.95) * 0.75)
        over(below, LASER, lettering(str(own[1]), u, v - 6, 0.85) * 0.6)
    elif part.look in ("block", "lamp"):
        _slab(paper, below, _box(u, v, wide, high, 1.0), u, v, TIN, 2.0)
        _slab(paper, below, _box(u, v, wide * 0.62, high, 0.4), u, v, colour, 1.6)
        if part.look == "lamp":
            _dome(paper, below, _away(u, v) - high * 0.72, u, v, (0.93, 0.90, 0.55))
        elif part.mark:
            over(below, SILK, lettering(part.mark, u, v, 0.52) * 0.75)
    elif part.look == "can":
        _dome(paper, below, _away(u, v) - wide, u, v, colour)
        over(below, BLACK, paper.edge(np.maximum(_away(u, v) - wide + 2.2, u + wide * 0.52), 0.8) * 0.9)
        over(below, BLACK, lettering(part.mark, u - 3, v, 1.0) * 0.7)
    elif part.look == "crystal":
        _slab(paper, below, _box(u, v, wide, high, high), u, v, colour, 4.0)
        over(below, BLACK, lettering(part.mark, u, v, 0.75) * 0.55)
    else:
        _header(paper, below, part, u, v)


def _slab(
    paper: Paper,
    below: np.ndarray,
    shape: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    colour: tuple[float, ...],
    bevel: float,
) -> None:
    """Paint a solid with a bevelled rim, lit from its upper left."""
    rim = (1 + shape * (1 / bevel)).clip(0, 1)
    rise = np.zeros_like(shape)
    rise[1:] += shape[:-1] - shape[1:]
    rise[:, 1:] += shape[:, :-1] - shape[:, 1:]
    level = 1 + rim * (rise * (0.30 / paper.unit)) - 0.004 * (u + v)
    ink = paper.edge(shape)
    for plane, tone in zip(below, colour, strict=True):
        plane += ink * (level * float(tone) + rim * 0.03 - plane)


def _dome(
    paper: Paper, below: np.ndarray, shape: np.ndarray, u: np.ndarray, v: np.ndarray, colour: tuple[float, ...]
) -> None:
    """Paint something round with a raised, shining rim."""
    _slab(paper, below, shape, u, v, colour, 3.0)
    over(below, DARK, paper.edge(np.abs(shape + 3.4) - 0.3, 1.0) * 0.35)
    shine = (1 - ((u + 4) ** 2 + (v + 5) ** 2) * (1 / 60)).clip(0, 1)
    over(below, (1.0, 1.0, 0.98), shine * shine * 0.35)


def _legs(paper: Paper, below: np.ndarray, part: _Part, u: np.ndarray, v: np.ndarray) -> None:
    """Paint the bent tin legs on two or four sides of a chip."""
    pitch, half = part.pitch / VIEW, (part.pins - 1) / 2
    out, along = np.abs(u), v
    if part.sides == 4:  # such a chip is square
        out, along = np.maximum(out, np.abs(v)), np.where(out > np.abs(v), v, u)
    out -= part.wide / VIEW + 2.4
    number = np.rint(along * (1 / pitch) + half).clip(0, 2 * half) - half
    leg = _box(along - number * pitch, out, 1.55, 3.2, 0.4)
    level = 0.86 - 0.06 * out
    over(below, SHADOW, paper.edge(leg - 0.6, 2.0) * 0.4)
    ink = paper.edge(leg)
    for plane, tone in zip(below, TIN, strict=True):
        plane += ink * (level * tone - plane)


def _header(paper: Paper, below: np.ndarray, part: _Part, u: np.ndarray, v: np.ndarray) -> None:
    """Paint a row of gold pins in black housings."""
    pitch, half = 2 * part.wide / VIEW / part.pins, (part.pins - 1) / 2
    number = np.rint(u * (1 / pitch) + half).clip(0, 2 * half) - half
    a = u - number * pitch
    _slab(paper, below, _box(a, v, pitch / 2, part.high / VIEW, 2.5), a, v, BLACK, 2.0)
    _slab(paper, below, _box(a, v, 2.3, 2.3, 0.3), a, v, GOLD, 1.5)


def lettering(text: str, u: np.ndarray, v: np.ndarray, dot: float) -> np.ndarray:
    """Return the coverage of a line of text centred on the origin, in dots of this many units."""
    digits = np.array([[int(digit, 32) for digit in ROWS[letter]] for letter in text])  # (letters, 7)
    dots = np.pad(digits.T[:, :, None] >> np.arange(4, -1, -1) & 1, ((0, 0), (0, 0), (0, 1))).reshape(7, -1)
    wide = dots.shape[1]
    there = (np.abs(u) < (wide / 2) * dot) & (np.abs(v) < 3.5 * dot)
    ink = np.zeros(there.shape, np.float32)
    column, row = u[there] * (1 / dot) + wide / 2, v[there] * (1 / dot) + 3.5
    ink[there] = dots[row.astype(np.intp).clip(0, 6), column.astype(np.intp).clip(0, wide - 1)]
    return ink


@cache
def _bare(size: int) -> _Bare:
    """Draw what all boards share, on a sheet twice as fine as the image's."""
    paper = sheet(2 * size)
    light = np.stack([np.full((paper.wide, paper.wide), tone, np.float32) for tone in POUR])
    gap, trace = np.zeros_like(light[0]), np.zeros_like(light[0])
    for path in _traces():
        paper.stroke(path, 4.4, 0, gap)
        paper.stroke(path, 1.9, 0, trace)
    pads = [pad for part in PARTS for pad in _pads(part)]
    for x, y, wide, high in pads:
        there = paper.window(x, y, wide + high + 4)
        shape = _box(paper.x[:, there[1]] - x, paper.y[there[0]] - y, wide, high, 0.8).astype(np.float32)
        gap[there] = np.maximum(gap[there], paper.edge(shape - 1.6))
        trace[there] = np.maximum(trace[there] * (shape > 1.6), 0)
    over(light, BARE_GREEN, gap)
    over(light, TRACE, trace)
    for x, y, wide, high in pads:
        there = paper.window(x, y, wide + high + 4)
        a, b = (paper.x[:, there[1]] - x).astype(np.float32), (paper.y[there[0]] - y).astype(np.float32)
        _slab(paper, light[:, *there], _box(a, b, wide, high, 0.8), a, b, TIN, 1.2)
    silk = _silk(paper)
    taken = ndimage.uniform_filter(gap + silk, round(7 / paper.unit)) > 1e-3
    grid = [(x, y) for x in range(12, 256, 20) for y in range(14, 256, 20)]
    ends = [tuple(path[-1]) for path in _traces()]
    for x, y in ends + [(x, y) for x, y in grid if not taken[int(y / paper.unit), int(x / paper.unit)]]:
        _via(paper, light, x, y, 2.0)
    _via(paper, light, 30, 28, 9)
    _via(paper, light, 226, 226, 9)
    silk *= np.abs(light[0] - POUR[0]) < 0.1  # no print on metal
    return _Bare(light, silk)


def _via(paper: Paper, light: np.ndarray, x: float, y: float, radius: float) -> None:
    there = paper.window(x, y, radius + 3)
    away = np.hypot(paper.x[:, there[1]] - x, paper.y[there[0]] - y).astype(np.float32)
    over(light[:, *there], BARE_GREEN, paper.edge(away - radius - 1.0))
    over(light[:, *there], GOLD, paper.edge(away - radius) * 0.85)
    over(light[:, *there], DARK, paper.edge(away - 0.5 * radius))


def _pads(part: _Part) -> list[tuple[float, float, float, float]]:
    """Return the pads of a part: middle and half sides, in units of the board."""
    if part.look == "chip":
        places = [(k - (part.pins - 1) / 2) * part.pitch for k in range(part.pins)]
        pads = [(part.x + s * (part.wide + 4), part.y + p, 4.2, 1.7) for p in places for s in (-1, 1)]
        more = [(part.x + p, part.y + s * (part.high + 4), 1.7, 4.2) for p in places for s in (-1, 1)]
        return pads + (more if part.sides == 4 else [])
    if part.look == "header":
        pitch = 2 * part.wide / part.pins
        return [(part.x + (k - (part.pins - 1) / 2) * pitch, part.y, 4, 4) for k in range(part.pins)]
    if part.look == "can":
        return [(part.x - 13, part.y, 6, 4), (part.x + 13, part.y, 6, 4)]
    reach = part.wide - 0.5
    if part.turn:
        return [(part.x, part.y - reach, part.high + 1, 4), (part.x, part.y + reach, part.high + 1, 4)]
    return [(part.x - reach, part.y, 4, part.high + 1), (part.x + reach, part.y, 4, part.high + 1)]


def _traces() -> list[np.ndarray]:
    """Return the copper tracks, each from a pad to where it dives through a via."""
    paths = []
    chip = PARTS[0]
    for k in range(chip.pins):
        p = (k - (chip.pins - 1) / 2) * chip.pitch
        start, spread = chip.wide + 6, p * 0.45
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


def _silk(paper: Paper) -> np.ndarray:
    """Return the coverage of the white print: labels, outlines, pin marks."""
    silk = np.zeros((paper.wide, paper.wide), np.float32)
    for text, x, y, dot in PRINTS:
        there = paper.window(x, y, 3 * dot * len(text) + 3)
        u, v = np.broadcast_arrays(paper.x[:, there[1]] - x, paper.y[there[0]] - y)
        silk[there] = np.maximum(silk[there], lettering(text, u, v, dot))
    for part in PARTS:
        wide, high = (part.high, part.wide) if part.turn else (part.wide, part.high)
        margin = 11 if part.look == "chip" else 5.5
        there = paper.window(part.x, part.y, max(wide, high) + 20)
        u, v = (paper.x[:, there[1]] - part.x).astype(np.float32), (paper.y[there[0]] - part.y).astype(np.float32)
        frame = _box(u, v, wide + margin, high + (margin if part.sides == 4 else 5.5), 1.5)
        if part.look == "can":
            frame = _away(u, v) - wide - 3
        corner = (np.abs(u) > 0.45 * wide) & (np.abs(v) > 0.45 * high) if part.look == "chip" else True
        silk[there] = np.maximum(silk[there], paper.edge(np.abs(frame) - 0.45) * corner)
    return silk
