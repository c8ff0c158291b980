"""Evaluation protocols: one view for all detectors or each paper's own, and an optional training-time budget.

    uniform          all detectors see 256 × 256 pixels
    uniform@512      all detectors see 512 × 512 pixels
    paper            the view and the parameters of each paper
    uniform+600s     a fit's training loops end after 600 seconds, whatever the epochs
    uniform+600cpu-s they end after 600 seconds of CPU time, so that a busy machine trains as long as a quiet one

The protocol is part of a run's identity and of every table's title. Numbers of two protocols are never mixed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from iadbe.errors import BadConfig

PATTERN = re.compile(r"(?P<kind>uniform|paper)(@(?P<size>\d+))?(\+(?P<budget>.+))?")
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
MIN_SIDE = 32  # pixels


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

    @classmethod
    def parse(cls, name: str) -> Protocol:
        """Read a protocol's name. Raises :class:`BadConfig`."""
        found = PATTERN.fullmatch(str(name))
        size = int(found["size"] or 256) if found else 0
        if not found or size < MIN_SIDE or (found["kind"] == "paper" and found["size"]):
            raise BadConfig(
                f"there is no protocol {name!r}. There are uniform, uniform@SIZE (such as 512, at least {MIN_SIDE}) "
                "and paper, each with +TIME for a budget (for example uniform+10m, or uniform+10cpu-m of CPU time)."
            )
        return cls(found["kind"], size, Budget.parse(found["budget"]) if found["budget"] else None)

    def __str__(self) -> str:
        size = f"@{self.size}" if self.kind == "uniform" and self.size != 256 else ""
        return self.kind + size + (f"+{self.budget}" if self.budget is not None else "")


def seconds(text: str) -> float:
    """Read a time such as ``90s``, ``10m``, ``2h`` or plain seconds. Raises :class:`BadConfig`."""
    found = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in UNITS:
        raise BadConfig(f"{text!r} is not a time such as 90s, 10m or 2h.")
    return float(found[1]) * UNITS[found[2].lower()]
