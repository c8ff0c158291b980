"""Evaluation protocols: one view for all detectors or each paper's own, and an optional training-time budget.

    uniform          all detectors see 256 × 256 pixels
    uniform@512      all detectors see 512 × 512 pixels
    uniform@512x256  all detectors see 512 pixels in width and 256 in height: width x height, as cameras state it
    uniform@native   all detectors see the images at their own size, which all images of a run share
    uniform@512,pad  images keep their aspect ratio: padded, or cropped (``crop``); without a word, squashed
    uniform,aligned  images are registered to the mean of normal training images before they come into the view
    uniform@2048,tiles=512/64
                     the view is cut into tiles of 512 pixels that overlap by 64
    uniform@native,tiles=auto
                     the sides of the tiles follow from those of the view
    uniform,native   pixel metrics at the images' own sizes, on maps that are upsampled; otherwise in the view
    paper            the view and the parameters of each paper
    paper,native     the same, with pixel metrics at the images' own sizes
    uniform+600s     a fit's training loops end after 600 seconds, whatever the epochs
    uniform+600cpu-s they end after 600 seconds of CPU time, so that a busy machine trains as long as a quiet one
    uniform+bf16     training computes in mixed precision, bf16 or fp16
    uniform+4batches an optimizer steps with the mean gradient of 4 batches

The protocol is part of a run's identity and of every table's title. Numbers of two protocols are never mixed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iadbe.errors import BadConfig

PATTERN = re.compile(
    r"(?P<kind>uniform|paper)(@(?P<size>native|\d+(x\d+)?))?(,(?P<fit>squash|pad|crop))?"
    r"(?P<aligned>,aligned(=(?P<limits>[^,+]+))?)?(,tiles=(?P<tiles>[\w./]+))?(?P<native>,native)?(?P<rest>(\+[^+]+)*)"
)
FITS = ("squash", "pad", "crop")  # see iadbe.data.view
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
MIN_SIDE = 32  # pixels
NATIVE = 0  # the size of a view that is that of the images
AUTO = 0  # the side of tiles that follows from the view
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Budget:
    """The time of each fit's training loops: wall time, or CPU time of the run's process over all its threads."""

    seconds: float
    cpu: bool = False

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read wall time such as ``90s`` or ``10m``, or CPU time such as ``90cpu-s``. Raises :class:`BadConfig`."""
        plain = re.sub(r"(?i)cpu-(?=[a-z])", "", text, count=1)
        return cls(seconds(plain), plain != text)

    def __str__(self) -> str:
        return f"{self.seconds:g}{'cpu-' if self.cpu else ''}s"


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a part may lie from the reference that its image is registered to."""

    rotation: float = 30.0  # degrees to each side
    shift: float = 0.15  # share of the image's shorter side
    scale: float = 0.0  # share of the size, larger or smaller

    def __post_init__(self) -> None:
        if not (0 <= self.rotation <= 180 and 0 <= self.shift <= 0.5 and 0 <= self.scale <= 0.5):
            raise BadConfig(
                "a part may be turned by 0 to 180 degrees, shifted by 0 to 0.5 of the shorter side, and larger or "
                f"smaller by 0 to 0.5, not {self}."
            )

    @classmethod
    def parse(cls, text: str) -> Limits:
        """Read ``30/0.15/0``: degrees, share of the shorter side, share of the size. Raises :class:`BadConfig`."""
        try:
            rotation, shift, scale = (float(part) for part in text.split("/"))
        except ValueError:
            raise BadConfig(
                f"limits of an alignment are DEGREES/SHIFT/SCALE such as 30/0.15/0, not {text!r}."
            ) from None
        return cls(rotation, shift, scale)

    def __str__(self) -> str:
        return f"{self.rotation:g}/{self.shift:g}/{self.scale:g}"


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a view is cut into tiles, which a detector sees one by one."""

    side: int = 512  # pixels; AUTO: it follows from the view, and so does the overlap (see iadbe.data.tiles)
    overlap: int = 64  # pixels, at least; of AUTO 0
    by_position: bool = False  # a detector of its own for each position, instead of one for all
    top: float = 0.0  # an image's score is the mean of this share of its tiles' scores, the highest; 0: the maximum

    def __post_init__(self) -> None:
        if self.side == AUTO and self.overlap:
            raise BadConfig(
                "tiles=auto has an overlap of its own. Give the side, too, such as --tiles 512 --overlap 64."
            )
        possible = self.side == AUTO or (self.side >= MIN_SIDE and 0 <= self.overlap <= self.side / 2)
        if not possible or not 0 <= self.top <= 1:
            raise BadConfig(
                f"tiles have at least {MIN_SIDE} pixels along a side, overlap by at most half of that, and the share "
                f"of the highest scores is from 0 to 1, not {self}."
            )

    @classmethod
    def parse(cls, text: str) -> Tiling:
        """Read ``512/64`` or ``auto``, with ``/position`` or ``/top0.1`` behind it. Raises :class:`BadConfig`."""
        found = re.fullmatch(r"(auto|[1-9]\d{0,4})(/(\d{1,5}))?(/position)?(/top(\d*\.?\d+))?", text)
        if not found:
            raise BadConfig(
                f"tiles are SIDE/OVERLAP in pixels such as 512/64, or auto, with /position for a detector of each "
                f"position and /top0.1 for a score of the highest tenth of the tiles, not {text!r}."
            )
        side = AUTO if found[1] == "auto" else int(found[1])
        return cls(side, int(found[3]) if found[3] else side // 8, bool(found[4]), float(found[6] or 0))

    def __str__(self) -> str:
        position = "/position" if self.by_position else ""
        sides = "auto" if self.side == AUTO else f"{self.side}/{self.overlap}"
        return f"{sides}{position}" + (f"/top{self.top:g}" if self.top else "")


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to compare. ``str`` gives its name, in one spelling for equal protocols."""

    kind: str = "uniform"
    size: int = 256  # height of the view that all share, in pixels; NATIVE: the images' own; papers have their own
    budget: Budget | None = None  # of each fit
    precision: str = "fp32"  # of training: one of PRECISIONS
    accumulate: int = 1  # batches whose mean gradient one step of an optimizer takes
    width: int = 0  # of the view; 0: the same as ``size``
    fit: str = "squash"  # how an image of another aspect ratio comes into the view: one of FITS
    align: Limits | None = None  # images are registered to a reference, within these limits; None: they are not
    tiling: Tiling | None = None  # of the view; None: detectors see it whole
    native: bool = False  # pixel metrics at the images' own sizes, not in the view

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS or self.accumulate < 1:
            raise BadConfig(
                f"precision is {', '.join(PRECISIONS)}, and batches are accumulated from 1 on, "
                f"not {self.precision!r} and {self.accumulate}."
            )
        if self.size == NATIVE and (self.width, self.fit) != (0, "squash"):
            raise BadConfig(f"images at their own size have no other width, and --fit {self.fit} changes nothing.")
        least = MIN_SIDE if self.size == NATIVE else min(self.size, self.width or self.size)
        if least < MIN_SIDE or self.fit not in FITS:
            raise BadConfig(
                f"a view has at least {MIN_SIDE} pixels along each side and is squash, pad or crop, "
                f"not {self.width or self.size}x{self.size} and {self.fit!r}."
            )
        if self.kind == "paper" and (self.size, self.width, self.fit) != (256, 0, "squash"):
            raise BadConfig(
                "papers have their own size and squash images, so give --size and --fit with uniform alone."
            )

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Read a protocol's name. Raises :class:`BadConfig`."""
        found = PATTERN.fullmatch(str(name))
        if not found or (found["kind"] == "paper" and (found["size"] or found["fit"])):
            raise BadConfig(
                f"there is no protocol {name!r}. There are uniform, uniform@SIZE (such as 512, or 512x256 in width and "
                f"height, at least {MIN_SIDE}; or native), with ,pad or ,crop where the aspect ratio stays, and paper. "
                "Each takes ,aligned for images that are registered to a reference (,aligned=45/0.2/0.1: degrees, "
                "shift, scale), ,tiles=512/64 for tiles of 512 pixels that overlap by 64 (or ,tiles=auto), ,native for "
                "pixel metrics at the images' own sizes, +TIME for a budget (for example uniform+10m, or "
                "uniform+10cpu-m of CPU time), +bf16 or +fp16 for training in mixed precision, +4batches for the mean "
                "gradient of 4 batches a step."
            )
        size, width = sides(found["size"] or "256")
        view: dict[str, Any] = {"width": width, "fit": found["fit"] or "squash", "native": bool(found["native"])}
        if found["aligned"]:
            view["align"] = Limits.parse(found["limits"]) if found["limits"] else Limits()
        if found["tiles"]:
            view["tiling"] = Tiling.parse(found["tiles"])
        return cls(found["kind"], size, **view, **_additions(name, found["rest"].split("+")[1:]))

    def __str__(self) -> str:
        size = f"{self.width}x{self.size}" if self.width else "native" if self.size == NATIVE else str(self.size)
        words = [f"@{size}" if size != "256" else ""]
        words.append(f",{self.fit}" if self.fit != "squash" else "")
        if self.align is not None:
            words.append(",aligned" if self.align == Limits() else f",aligned={self.align}")
        words.append(f",tiles={self.tiling}" if self.tiling is not None else "")
        words.append(",native" if self.native else "")
        words.append(f"+{self.budget}" if self.budget is not None else "")
        words.append(f"+{self.precision}" if self.precision != "fp32" else "")
        words.append(f"+{self.accumulate}batches" if self.accumulate > 1 else "")
        return self.kind + "".join(words)


def _additions(name: str, parts: Sequence[str]) -> dict[str, Any]:
    """Read what follows a protocol's kind: each of budget, precision and accumulated batches at most once."""
    given: dict[str, Any] = {}
    for part in parts:
        key, value = "budget", part
        if part in PRECISIONS:
            key = "precision"
        elif batches := re.fullmatch(r"(\d{1,6})batches", part):
            key, value = "accumulate", batches[1]
        if key in given:
            raise BadConfig(f"the protocol {name!r} has two of {given[key]} and {value}. Give one of them.")
        given[key] = int(value) if key == "accumulate" else value
    return given | ({"budget": Budget.parse(given["budget"])} if "budget" in given else {})


def sides(text: str) -> tuple[int, int]:
    """Read ``512``, ``native`` or, width first, ``512x256``; return (height, width), width 0 where it is the same.

    Raises :class:`BadConfig`.
    """
    if text == "native":
        return NATIVE, 0
    found = re.fullmatch(r"(\d{1,5})(x(\d{1,5}))?", text)
    if not found:
        raise BadConfig(
            f"a size is a number of pixels such as 512, or WIDTHxHEIGHT such as 512x256, or native, not {text!r}."
        )
    width, height = int(found[1]), int(found[3] or found[1])
    if min(width, height) < MIN_SIDE:
        raise BadConfig(f"a view has at least {MIN_SIDE} pixels along each side, not {text}.")
    return height, width if width != height else 0


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``10m``, ``2h`` or plain seconds. Raises :class:`BadConfig`."""
    found = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in UNITS:
        raise BadConfig(f"{text!r} is not a time such as 90s, 10m or 2h.")
    return float(found[1]) * UNITS[found[2].lower()]
