"""Whether an updated model may take the place of the present one: both on the same challenge set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from iadbe.acceptance.challenge import Challenge
from iadbe.evaluation.confidence import Interval, bootstrap_all, percentile_interval
from iadbe.evaluation.conformal import percent
from iadbe.runtime.verdict import GOOD, REJECT

TOLERANCE = 0.01  # by which the AUROC may be lower, and escape and overkill higher
SHARES = {"escape": "defective parts that are called good", "overkill": "good parts that are rejected"}


class Changed(NamedTuple):
    """How many images got another verdict, and how probable that many or more are on one side by chance."""

    better: int
    worse: int
    p: float  # McNemar's exact test, two-sided


@dataclass(frozen=True)
class Gate:
    """The evidence of a comparison."""

    present: Challenge
    candidate: Challenge
    tolerance: float = TOLERANCE

    @property
    def difference(self) -> float:
        """The candidate's AUROC minus the present one's."""
        return self.candidate.auroc - self.present.auroc

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the difference, by a paired bootstrap; None where it cannot be had."""
        new, old = bootstrap_all([[self.candidate.scores], [self.present.scores]])
        differences = new - old
        return None if any(map(math.isnan, differences)) else percentile_interval(differences)

    def changed(self, share: str) -> Changed:
        """Return how many verdicts became better or worse, of those that ``escape`` or ``overkill`` is counted from."""
        side, wrong = ("bad", GOOD) if share == "escape" else ("good", REJECT)
        old, new = ({r.key: r.verdict == wrong for r in getattr(of, side)} for of in (self.present, self.candidate))
        better = sum(old[key] and not new[key] for key in old)
        worse = sum(new[key] and not old[key] for key in old)
        return Changed(better, worse, mcnemar(better, worse))

    @property
    def faults(self) -> tuple[str, ...]:
        """In which respects the candidate is worse by more than the tolerance."""
        found = [f"its AUROC is lower by {-self.difference:.4f}"] if self.difference < -self.tolerance else []
        for name in SHARES:
            before, after = (getattr(of, name).value for of in (self.present, self.candidate))
            if after > before + self.tolerance:
                found.append(f"its {name} is {percent(after)} instead of {percent(before)}")
        return tuple(found)

    @property
    def passes(self) -> bool:
        """Whether the candidate may be promoted."""
        return not self.faults

    def sentence(self) -> str:
        """Return the outcome in words."""
        if self.passes:
            return f"Promote: on no count is the candidate worse by more than {self.tolerance:g}."
        return f"Keep the present model: of the candidate, {' and '.join(self.faults)}."

    def card(self) -> Mapping[str, Any]:
        """Return the evidence as plain values."""
        interval = self.interval
        return {
            "passes": self.passes,
            "sentence": self.sentence(),
            "tolerance": self.tolerance,
            "images": {"good": len(self.present.good), "bad": len(self.present.bad)},
            "auroc": {
                "present": self.present.auroc,
                "candidate": self.candidate.auroc,
                "interval": None if interval is None else [interval.low, interval.high],
            },
            **{
                name: {
                    "present": getattr(self.present, name).value,
                    "candidate": getattr(self.candidate, name).value,
                    **self.changed(name)._asdict(),
                }
                for name in SHARES
            },
        }


def mcnemar(better: int, worse: int) -> float:
    """Return the p-value of McNemar's exact test: under chance each change is as likely for the better as the worse."""
    count, least = better + worse, min(better, worse)
    below = sum(math.comb(count, k) for k in range(least + 1)) / 2**count
    return min(1.0, 2 * below)
