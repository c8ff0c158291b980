import math
from itertools import pairwise

import numpy as np
import pytest

from iadbe.report.charts import BINS, histogram, pareto_front, rank_diagram, round_steps, scatter


class TestFront:
    def test_only_points_that_no_other_dominates(self):
        assert pareto_front([(10, 0.9), (5, 0.8), (20, 0.95), (12, 0.85), (5, 0.7)]) == [1, 0, 2]

    def test_of_equal_points_one_is_on_the_front(self):
        assert pareto_front([(10, 0.9), (10, 0.9), (20, 0.9)]) == [0]


class TestScatter:
    rows = (("quick", 2.0, 0.90), ("good", 40.0, 0.99), ("neither", 50.0, 0.85), ("middle", 10.0, 0.95))

    def test_better_is_higher_and_quicker_is_left(self):
        points = {p.name: p for p in scatter(self.rows).points}
        assert points["quick"].x < points["middle"].x < points["good"].x < points["neither"].x
        assert points["good"].y < points["middle"].y < points["quick"].y < points["neither"].y
        assert [p.on_front for p in points.values()] == [True, True, False, True]
        assert points["middle"].x - points["quick"].x > points["good"].x - points["middle"].x  # logarithmic: 5x > 4x

    def test_everything_is_inside_the_frame(self):
        chart = scatter([*self.rows, ("perfect", 1000.0, 1.0), ("a rather long name(coreset=0.01)", 999.0, 1.0)])
        for p in chart.points:
            assert chart.left <= p.x <= chart.right
            assert chart.top <= p.y <= chart.bottom
        for tick in chart.x_ticks:
            assert chart.left <= tick.at <= chart.right
        assert len(chart.y_ticks) >= 3
        assert len(chart.x_ticks) >= 3

    def test_labels_do_not_overlap_where_there_is_space(self):
        rows = [(f"detector{i}", 10.0 + i, 0.9 + i / 1000) for i in range(5)]
        boxes = []
        for p in scatter(rows).points:
            start = p.label_x - {"start": 0, "middle": 0.5, "end": 1}[p.anchor] * 6.6 * len(p.name)
            boxes.append((start, p.label_y - 11, start + 6.6 * len(p.name), p.label_y + 3))
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])

    def test_values_that_are_not_finite_are_left_out(self):
        assert scatter([("a", math.nan, 0.9), ("b", 3.0, math.nan)]) is None
        assert [p.name for p in scatter([("a", math.nan, 0.9), ("b", 3.0, 0.5)]).points] == ["b"]
        assert scatter([("b", 3.0, 1.0)]).y_ticks


class TestHistogram:
    def test_every_image_is_counted(self):
        rng = np.random.default_rng(0)
        made = histogram(rng.normal(size=40), rng.normal(3, size=60), 1.5)
        assert (made.good, made.bad) == (40, 60)
        assert max(b.good for b in made.bars) == max(b.bad for b in made.bars) == 100
        assert 0 < made.threshold < 100
        assert all(0 <= b.x < 100 for b in made.bars)

    def test_an_outlier_does_not_flatten_the_histogram(self):
        good, bad = np.linspace(0, 1, 50), [*np.linspace(1, 2, 49), 1e6]
        made = histogram(good, bad, 1.0)
        assert made.high < 10
        assert len(made.bars) > BINS / 3
        assert made.bars[-1].bad > 0

    @pytest.mark.parametrize(("good", "bad"), [([1.0], []), ([2.0, 2.0], [2.0])])
    def test_few_or_equal_scores(self, good, bad):
        assert len(histogram(good, bad, None).bars) == 1
        assert histogram([], [], None) is None


def test_round_steps():
    assert round_steps(0.831, 1.0, 4) == [0.85, 0.9, 0.95, 1.0]
    assert round_steps(0.9, 0.91, 5) == [0.9, 0.902, 0.904, 0.906, 0.908, 0.91]


class TestRankDiagram:
    NAMES = ("dinomaly(size=base)", "patchcore", "padim", "stfpm", "dfkde")
    MEAN = (1.2, 1.9, 3.1, 3.9, 4.9)

    def test_ranks_lie_on_the_axis_and_bars_span_their_groups(self):
        plot = rank_diagram(self.NAMES, self.MEAN, [(0, 1), (1, 3)], 1.5)
        assert [t.label for t in plot.ticks] == ["1", "2", "3", "4", "5"]
        unit = (plot.right - plot.left) / 4
        assert plot.ruler.right - plot.ruler.left == pytest.approx(1.5 * unit, abs=0.2)
        for bar, (first, last) in zip(plot.bars, [(0, 1), (1, 3)], strict=True):
            assert bar.left + 4 == pytest.approx(plot.left + (self.MEAN[first] - 1) * unit, abs=0.2)
            assert bar.right - 4 == pytest.approx(plot.left + (self.MEAN[last] - 1) * unit, abs=0.2)
            assert plot.axis < bar.y < min(d.label_y for d in plot.detectors)
        assert len({bar.y for bar in plot.bars}) == 2

    def test_names_are_inside_on_their_side_and_apart(self):
        plot = rank_diagram(self.NAMES, self.MEAN, [], 1.5)
        assert [d.anchor for d in plot.detectors] == ["end"] * 3 + ["start"] * 2
        for d in plot.detectors:
            wide = 6.6 * len(f"{d.name} ({d.rank})")
            assert (d.label_x - wide > 0) if d.anchor == "end" else (d.label_x + wide < plot.width)
            assert plot.axis < d.label_y < plot.height
        for side in ("end", "start"):
            heights = sorted(d.label_y for d in plot.detectors if d.anchor == side)
            assert all(b - a >= 14 for a, b in pairwise(heights))

    def test_a_wide_critical_difference_and_many_detectors_stay_inside(self):
        names = [f"d{i}" for i in range(30)]
        plot = rank_diagram(names, [1.0 + i for i in range(30)], [(0, 29)], 40.0)
        assert plot.ruler.right <= plot.width
        assert len(plot.ticks) <= 15
        assert rank_diagram(["alone"], [1.0], [], 1.0) is None
