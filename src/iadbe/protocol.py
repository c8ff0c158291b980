"""Evaluation protocols: one view for all detectors or each paper's own, and an optional training-time budget.

    uniform          all detectors see 256 × 256 pixels
    uniform@512      all detectors see 512 × 512 pixels
    paper            the view and the parameters of each paper
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

PATTERN = re.compile(r"(?P<kind>uniform|paper)(@(?P<size>\d+))?(?P<rest>(\+[^+]+)*)")
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
MIN_SIDE = 32  # pixels
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
class Protocol:
    """One way to compare. ``str`` gives its name, in one spelling for equal protocols."""

    kind: str = "uniform"
    size: int = 256  # pixels, of the view that all share; papers have their own
    budget: Budget | None = None  # of each fit
    precision: str = "fp32"  # of training: one of PRECISIONS
    accumulate: int = 1  # batches whose mean gradient one step of an optimizer takes

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS or self.accumulate < 1:
            raise BadConfig(
                f"precision is {', '.join(PRECISIONS)}, and batches are accumulated from 1 on, "
                f"not {self.precision!r} and {self.accumulate}."
            )

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Read a protocol's name. Raises :class:`BadConfig`."""
        found = PATTERN.fullmatch(str(name))
        size = int(found["size"] or 256) if found else 0
        if not found or size < MIN_SIDE or (found["kind"] == "paper" and found["size"]):
            raise BadConfig(
                f"there is no protocol {name!r}. There are uniform, uniform@SIZE (such as 512, at least {MIN_SIDE}) "
                "and paper, each with +TIME for a budget (for example uniform+10m, or uniform+10cpu-m of CPU time), "
                "+bf16 or +fp16 for training in mixed precision, +4batches for the mean gradient of 4 batches a step."
            )
        return cls(found["kind"], size, **_additions(name, found["rest"].split("+")[1:]))

    def __str__(self) -> str:
        size = f"@{self.size}" if self.kind == "uniform" and self.size != 256 else ""
        budget = f"+{self.budget}" if self.budget is not None else ""
        precision = f"+{self.precision}" if self.precision != "fp32" else ""
        return self.kind + size + budget + precision + (f"+{self.accumulate}batches" if self.accumulate > 1 else "")


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


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``10m``, ``2h`` or plain seconds. Raises :class:`BadConfig`."""
    found = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in UNITS:
        raise BadConfig(f"{text!r} is not a time such as 90s, 10m or 2h.")
    return float(found[1]) * UNITS[found[2].lower()]
