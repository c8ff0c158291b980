"""How often a 95 % confidence interval holds the true value: a simulation with a fixed seed, printed as tables.

Run it from the repository root: ``python benchmarks/intervals.py [TESTS]``. There are TESTS simulated test sets a row,
1000 by default, and half as many for several categories, seeds or other distributions; it takes about three minutes
on one core.

True value: the metric's mean over test sets of the same sizes, from 20 000 others. For AUROC, and nearly for AP, that
is also the value of infinitely many images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtri

from iadbe.evaluation.confidence import CategoryScores
from iadbe.evaluation.intervals import score_interval, simulated_counts
from iadbe.metric import CountMetric, parse

SIZES = ((14, 40), (20, 63), (41, 119), (100, 100))  # good + defective
AUROCS = (0.77, 0.95, 0.99, 0.998)
METRICS = ("auroc", "ap", "f1max", "overkill", "escape")
OTHERS = 20_000  # test sets that the true value is taken from
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
SHAPES: dict[str, tuple[Draw, Draw]] = {  # of the scores of good and of defective images; the latter are shifted
    "defects half as wide": (lambda r, s: r.standard_normal(s), lambda r, s: 0.5 * r.standard_normal(s)),
    "defects 0.8 as wide": (lambda r, s: r.standard_normal(s), lambda r, s: 0.8 * r.standard_normal(s)),
    "defects 1.25 as wide": (lambda r, s: r.standard_normal(s), lambda r, s: 1.25 * r.standard_normal(s)),
    "defects twice as wide": (lambda r, s: r.standard_normal(s), lambda r, s: 2 * r.standard_normal(s)),
    "logistic": (lambda r, s: r.logistic(size=s), lambda r, s: r.logistic(size=s)),
    "Student t, 3 df": (lambda r, s: r.standard_t(3, s), lambda r, s: r.standard_t(3, s)),
    "exponential": (lambda r, s: r.standard_exponential(s), lambda r, s: r.standard_exponential(s)),
}
NORMAL: tuple[Draw, Draw] = (lambda r, s: r.standard_normal(s), lambda r, s: r.standard_normal(s))


def separation(auroc: float, shape: tuple[Draw, Draw] = NORMAL) -> float:
    """Return the shift of the defective images' scores that gives the true AUROC."""
    if shape is NORMAL:
        return float(ndtri(auroc) * np.sqrt(2))
    rng = np.random.default_rng(9)
    difference = np.sort(shape[0](rng, (1000, 1000)) - shape[1](rng, (1000, 1000)), axis=None)
    return float(difference[int(auroc * difference.size)])


def scores(rng: np.random.Generator, tests: int, size: tuple[int, int], shift: float, shape=NORMAL) -> np.ndarray:
    """Return (tests, good + defective) scores."""
    good, bad = size
    return np.hstack([shape[0](rng, (tests, good)), shape[1](rng, (tests, bad)) + shift])


def true_value(metric: CountMetric, size: tuple[int, int], shift: float, shape=NORMAL) -> float:
    """Return the metric's mean over test sets of a size."""
    others = scores(np.random.default_rng(7), OTHERS, size, shift, shape).astype(np.float32)
    return float(np.mean(metric.from_counts(simulated_counts(others, size[0], 0.0))))


def coverage(tests: Sequence[Sequence[CategoryScores]], metric: CountMetric, truth: float) -> str:
    """Return the coverage, and the shares of intervals that lie above and below the true value."""
    ends = np.array([score_interval(cases, metric) for cases in tests])
    above, below = np.mean(ends[:, 0] > truth + 1e-12), np.mean(ends[:, 1] < truth - 1e-12)
    return f"{1 - above - below:.3f} ({above:.3f}, {below:.3f})"


def case(size: tuple[int, int], rows: np.ndarray) -> CategoryScores:
    """Make a case of scores, one row per seed."""
    return CategoryScores((), np.repeat([False, True], size), np.atleast_2d(rows))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def one_category(tests: int) -> None:
    """Print the coverage for one category, sizes by true AUROCs."""
    rows = []
    for size in SIZES:
        for auroc in AUROCS:
            shift, rng = separation(auroc), np.random.default_rng([1, *size])
            made = [[case(size, row)] for row in scores(rng, tests, size, shift)]
            found = [coverage(made, m, true_value(m, size, shift)) for m in metrics()]
            rows.append([f"{size[0]} + {size[1]}", f"{auroc}", *found])
    print_table("One category; normal scores of equal variance", ["images", "true AUROC", *METRICS], rows)


def several_categories(tests: int) -> None:
    """Print the coverage for means over categories."""
    usual = [(f"{k} of 20 + 63, AUROC {a}", [(20, 63)] * k, [a] * k) for k in (3, 15) for a in AUROCS]
    mixed = [
        ("15 of 20 + 63, 2 at 0.8, 13 at 0.998", [(20, 63)] * 15, [0.8] * 2 + [0.998] * 13),
        ("14 + 40 at 0.8, 14 of 58 + 110 at 0.998", [(14, 40)] + [(58, 110)] * 14, [0.8] + [0.998] * 14),
        (
            "5 of 14 + 40, 10 of 41 + 119, 0.9 to 0.9999",
            [(14, 40)] * 5 + [(41, 119)] * 10,
            np.linspace(0.9, 0.9999, 15),
        ),
        ("14 + 40 at 0.77, 58 + 110 at 0.998", [(14, 40), (58, 110)], [0.77, 0.998]),
    ]
    rows = []
    for name, sizes, aurocs in (*usual, *mixed):
        rng, shifts = np.random.default_rng([2, len(sizes)]), [separation(float(a)) for a in aurocs]
        drawn = [scores(rng, tests, s, d) for s, d in zip(sizes, shifts, strict=True)]
        made = [[case(s, d[i]) for s, d in zip(sizes, drawn, strict=True)] for i in range(tests)]
        row = [name]
        for metric in metrics():
            row.append(
                coverage(
                    made, metric, float(np.mean([true_value(metric, *p) for p in zip(sizes, shifts, strict=True)]))
                )
            )
        rows.append(row)
    print_table("Means over categories", ["categories", *METRICS], rows)


def several_seeds(tests: int) -> None:
    """Print the coverage where three seeds score the same images; how alike, the correlation of their noise says."""
    rows, size = [], (20, 63)
    for alike in (1.0, 0.9, 0.5):
        for auroc in AUROCS:
            shift, rng = separation(auroc), np.random.default_rng([3, int(alike * 10)])
            shared, own = scores(rng, tests, size, 0.0), rng.standard_normal((tests, 3, sum(size)))
            noisy = np.sqrt(alike) * shared[:, None] + np.sqrt(1 - alike) * own
            noisy[:, :, size[0] :] += shift
            made = [[case(size, rows_)] for rows_ in noisy]
            rows.append([f"{alike}", f"{auroc}", *(coverage(made, m, true_value(m, size, shift)) for m in metrics())])
    print_table("Three seeds, 20 + 63 images", ["correlation", "true AUROC", *METRICS], rows)


def other_shapes(tests: int) -> None:
    """Print the coverage where the scores do not follow the model."""
    rows = []
    for name, shape in SHAPES.items():
        for size in SIZES[1:3]:
            for auroc in AUROCS:
                shift, rng = separation(auroc, shape), np.random.default_rng([4, *size])
                made = [[case(size, row)] for row in scores(rng, tests, size, shift, shape)]
                found = [coverage(made, m, true_value(m, size, shift, shape)) for m in metrics()]
                rows.append([name, f"{size[0]} + {size[1]}", f"{auroc}", *found])
    print_table("Scores that do not follow the model", ["scores", "images", "true AUROC", *METRICS], rows)
    rows = []
    for auroc in AUROCS:  # ties: scores are rounded to half a standard deviation
        size, shift, rng = (20, 63), separation(auroc), np.random.default_rng(5)
        rounded = np.round(2 * scores(rng, 4 * tests, size, shift)) / 2
        made = [[case(size, row)] for row in rounded[:tests]]
        truth = np.repeat([False, True], size)
        rows.append([f"{auroc}", *(coverage(made, m, np.mean([m(truth, r) for r in rounded])) for m in metrics())])
    print_table("Scores rounded to half a standard deviation, 20 + 63", ["AUROC before", *METRICS], rows)


def metrics() -> list[CountMetric]:
    """Return the metrics of the columns."""
    return [parse(f"image_{name}")[1] for name in METRICS]  # type: ignore[misc]


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("Coverage of the 95 % interval (in brackets: shares of intervals that lie above, and below, the true value).")
    one_category(count)
    several_categories(count // 2)
    several_seeds(count // 2)
    other_shapes(count // 2)
