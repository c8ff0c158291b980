"""Rank tests over categories: mean ranks, Wilcoxon's signed-rank test with Holm's correction, Friedman, Nemenyi.

Papers: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006; Benavoli et al., "Should
We Really Use Post-Hoc Tests Based on Mean-Ranks?", JMLR 17, 2016, for pairwise Wilcoxon tests instead of Nemenyi's.
Differs:

* A category is one block. Its value is the mean over seeds, since seeds of one category are not independent.
* Wilcoxon's test is exact, with ties. Categories in which two detectors are equal are handled by Pratt's method: they
  count when ranks are assigned, then drop out.
* Friedman's test and Nemenyi's critical difference are reported as well, for readers who are used to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from iadbe.results.comparison import Comparison

LEVEL = 0.05
MIN_DETECTORS = 2
MIN_CATEGORIES = 3


@dataclass(frozen=True, slots=True)
class Ranks:
    """Detectors by mean rank over categories, the best first."""

    metric: str
    names: tuple[str, ...]
    mean: tuple[float, ...]  # mean rank; 1 is best
    categories: int
    p: tuple[tuple[float, ...], ...]  # of each pair, Wilcoxon's, Holm-corrected; 1 on the diagonal
    groups: tuple[tuple[int, int], ...]  # (first, last) of two or more neighbours without a significant difference
    friedman: float  # p value of Friedman's test; nan for two detectors
    critical: float  # Nemenyi's critical difference of mean ranks

    @property
    def letters(self) -> tuple[str, ...]:
        """Compact letter display: detectors that share a letter do not differ significantly."""
        alone = [i for i in range(len(self.names)) if not any(a <= i <= b for a, b in self.groups)]
        every = sorted([*self.groups, *((i, i) for i in alone)])
        return tuple(
            "".join(_letter(n) for n, (a, b) in enumerate(every) if a <= i <= b) for i in range(len(self.names))
        )

    @property
    def has_power(self) -> bool:
        """Return whether the test can be significant at all with so few categories and so many detectors."""
        count = len(self.names)
        return 2.0 ** (1 - self.categories) * (count * (count - 1) / 2) <= LEVEL

    @property
    def sentence(self) -> str:
        """Explain ranks and letters."""
        what = f"Ranks are means over {self.categories} categories; detectors that share a letter "
        what += "do not differ significantly"
        how = "(Wilcoxon's signed-rank test on categories, Holm's correction, 5 %)"
        if not self.has_power:
            how += f"; with {self.categories} categories no difference can be significant, however large it is"
        friedman = "" if math.isnan(self.friedman) else f" Friedman's test: p {_written(self.friedman)}."
        return f"{what} {how}.{friedman} Nemenyi's critical difference: {self.critical:.2f} ranks."


def ranks(comparison: Comparison, metric: str, *, lower_is_better: bool = False) -> Ranks | None:
    """Rank the detectors that have every category; None for fewer than two detectors or three categories."""
    categories = comparison.categories(metric)
    entries = [e for e in comparison.entries if comparison.mean(e, metric).ranked]
    if len(entries) < MIN_DETECTORS or len(categories) < MIN_CATEGORIES:
        return None
    values = np.array([[e.value(metric, c) for e in entries] for c in categories])  # (blocks, detectors)
    values = np.round(values if lower_is_better else -values, 12)  # lower is better from here; rounding keeps ties
    each = np.array([midranks(row) for row in values])
    mean = each.mean(axis=0)
    order = sorted(range(len(entries)), key=lambda i: (mean[i], values[:, i].mean(), entries[i].name))
    corrected = pair_values(values[:, order])
    return Ranks(
        metric,
        tuple(entries[i].name for i in order),
        tuple(float(mean[i]) for i in order),
        len(categories),
        tuple(map(tuple, corrected.tolist())),
        tuple(groups(corrected)),
        friedman(each) if len(entries) > MIN_DETECTORS else math.nan,
        critical_difference(len(entries), len(categories)),
    )


def pair_values(values: np.ndarray) -> np.ndarray:
    """Return (D, D) p values of all pairs of columns of ``values`` (blocks, D): Wilcoxon's, Holm-corrected."""
    count = values.shape[1]
    pairs = list(combinations(range(count), 2))
    corrected = holm([wilcoxon(values[:, i] - values[:, j]) for i, j in pairs])
    found = np.ones((count, count))
    for (i, j), p in zip(pairs, corrected, strict=True):
        found[i, j] = found[j, i] = p
    return found


def wilcoxon(differences: np.ndarray) -> float:
    """Return the exact two-sided p value of the null hypothesis that differences are symmetric about 0."""
    differences = np.round(differences, 12)
    sizes = np.round(2 * midranks(np.abs(differences))).astype(int)  # doubled, so that midranks are integers
    kept = differences != 0
    sizes, positive = sizes[kept], int(sizes[kept & (differences > 0)].sum())
    ways = np.zeros(int(sizes.sum()) + 1)  # probability of each sum of positive ranks
    ways[0] = 1.0
    for size in sizes:
        shifted = np.zeros_like(ways)
        shifted[size:] = ways[: ways.size - size]
        ways = (ways + shifted) / 2
    extreme = min(positive, int(sizes.sum()) - positive)
    return min(1.0, 2 * float(ways[: extreme + 1].sum()))


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm-corrected p values, at most 1, in the given order."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    corrected, least = [1.0] * len(values), 0.0
    for place, i in enumerate(order):
        least = max(least, min(1.0, (len(values) - place) * values[i]))
        corrected[i] = least
    return corrected


def groups(corrected: np.ndarray, level: float = LEVEL) -> list[tuple[int, int]]:
    """Return (first, last) of all maximal runs of neighbours in which no pair differs at ``level``."""
    found: list[tuple[int, int]] = []
    for first in range(len(corrected)):
        last = first
        while last + 1 < len(corrected) and (corrected[first : last + 1, last + 1] > level).all():
            last += 1
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return found


def friedman(each: np.ndarray) -> float:
    """Return the p value of Friedman's test, corrected for ties, on ranks ``each`` (blocks, D)."""
    blocks, count = each.shape
    spread = float(((each - (count + 1) / 2) ** 2).sum()) / (blocks * (count - 1))
    if spread == 0:
        return 1.0
    statistic = float(((each.mean(axis=0) - (count + 1) / 2) ** 2).sum()) * blocks / spread
    return chi_square_survival(count - 1, statistic)


def chi_square_survival(freedom: int, value: float) -> float:
    """Return the probability that a chi-square variable of ``freedom`` >= 1 degrees exceeds ``value`` >= 0.

    Integration by parts gives the finite sum P = Q_r + e^-x Σ x^k / Γ(k + 1) over k = r, r + 1 ... below freedom / 2,
    with x = value / 2: from r = 0 and Q_0 = 0 for even degrees, from r = 1/2 and Q_½ = erfc(√x) for odd ones.
    Importing scipy's takes longer than all else that a table needs.
    """
    x, odd = value / 2, freedom % 2
    if x == 0:
        return 1.0
    terms = (math.exp(k * math.log(x) - x - math.lgamma(k + 1)) for k in (i + odd / 2 for i in range(freedom // 2)))
    return min(1.0, (math.erfc(math.sqrt(x)) if odd else 0.0) + math.fsum(terms))


def critical_difference(count: int, blocks: int, level: float = LEVEL) -> float:
    """Return Nemenyi's critical difference of the mean ranks of ``count`` detectors over ``blocks`` categories."""
    return studentized_range(count, level) / math.sqrt(2) * math.sqrt(count * (count + 1) / (6 * blocks))


def studentized_range(count: int, level: float) -> float:
    """Return the upper quantile at ``level`` of the range of ``count`` standard normal variables."""
    z = np.linspace(-9.0, 9.0, 4001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    below, low, high = _normal(z), 0.0, 20.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        within = count * float(density @ (below - _normal(z - middle)) ** (count - 1))
        low, high = (low, middle) if within > 1 - level else (middle, high)
    return (low + high) / 2


def _normal(z: np.ndarray) -> np.ndarray:
    """Return the standard normal distribution function."""
    return np.array([math.erfc(v) for v in (z / -math.sqrt(2)).tolist()]) / 2


def midranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1 in rising order; ties share their mean rank."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(values[order])) if a != b), len(values)]
    for first, end in pairwise(starts):
        found[order[first:end]] = (first + 1 + end) / 2
    return found


def _letter(number: int) -> str:
    """Return a, b … z, A … Z, and * beyond."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return (letters + letters.upper())[number] if number < 52 else "*"


def _written(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"
