from itertools import product

import numpy as np
import pytest
from scipy import stats
from scipy.special import chdtrc

from fake_results import result
from iadbe.results import significance
from iadbe.results.comparison import compare
from iadbe.results.significance import (
    chi_square_survival,
    critical_difference,
    friedman,
    groups,
    holm,
    midranks,
    pair_values,
    ranks,
    wilcoxon,
)


def runs(detector, values, metric="image_auroc", **more):
    return [result(detector, f"c{i}", {metric: v}, metrics=(metric,), **more) for i, v in enumerate(values)]


def comparison(**values):
    (found,) = compare([r for name, vs in values.items() for r in runs(name, vs)])
    return found


class TestWilcoxon:
    @pytest.mark.parametrize("seed", range(6))
    def test_is_scipys_exact_one_without_ties(self, seed):
        rng = np.random.default_rng(seed)
        differences = rng.normal(0.4, size=int(rng.integers(4, 30)))
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert wilcoxon(differences) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("seed", range(12))
    def test_with_ties_and_equals_it_is_what_all_signs_give(self, seed):
        rng = np.random.default_rng(seed)
        differences = rng.integers(-2, 4, size=9) / 100
        size = midranks(np.abs(differences))
        kept = differences != 0
        centre = size[kept].sum() / 2
        seen = abs(size[differences > 0].sum() - centre)
        signs = product([0, 1], repeat=int(kept.sum()))
        share = np.mean([abs(np.dot(s, size[kept]) - centre) >= seen - 1e-9 for s in signs])
        assert wilcoxon(differences) == pytest.approx(share, abs=1e-12)

    def test_all_equal_pairs_have_p_1(self):
        assert wilcoxon(np.zeros(5)) == 1.0
        assert wilcoxon(np.full(6, 0.1)) == pytest.approx(2 / 64)

    def test_the_type_one_error_is_at_most_the_level(self):
        rng = np.random.default_rng(0)
        rejected = np.mean([wilcoxon(rng.normal(size=12)) <= 0.05 for _ in range(800)])
        assert 0.03 < rejected < 0.07


def test_holm_equals_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(4))
def test_friedman_is_scipys_ties_and_all(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (8, 4)).astype(float)
    expected = stats.friedmanchisquare(*values.T).pvalue
    assert friedman(np.array([midranks(row) for row in values])) == pytest.approx(expected, abs=1e-12)
    assert friedman(np.full((5, 3), 2.0)) == 1.0
    assert np.array_equal(midranks(values[0]), stats.rankdata(values[0]))


@pytest.mark.parametrize(("count", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_differences_are_those_of_demsars_table(count, q):
    assert critical_difference(count, 15) == pytest.approx(q * np.sqrt(count * (count + 1) / 90), abs=1e-3)
    exact = stats.studentized_range.ppf(0.95, count, np.inf)
    assert significance.studentized_range(count, 0.05) == pytest.approx(exact, abs=1e-6)


def test_groups_are_the_longest_runs_without_a_difference():
    p = np.ones((5, 5))
    p[0, 2:] = p[2:, 0] = p[1, 4] = p[4, 1] = 0.01
    assert groups(p) == [(0, 1), (1, 3), (2, 4)]
    assert groups(np.ones((3, 3))) == [(0, 2)]
    assert groups(np.zeros((3, 3))) == []


class TestRanks:
    def test_clear_leads_over_many_categories_are_seen(self):
        rng = np.random.default_rng(1)
        base = rng.uniform(0.7, 0.8, 15)
        found = ranks(
            comparison(best=base + 0.15, same=base + 0.15 + rng.normal(0, 0.01, 15), worst=base), "image_auroc"
        )
        assert set(found.names[:2]) == {"best", "same"}
        assert found.names[2] == "worst"
        assert found.mean[2] == 3.0
        assert found.groups == ((0, 1),)
        assert found.letters == ("a", "a", "b")
        assert found.has_power
        assert found.friedman < 1e-4
        assert "share a letter do not differ significantly" in found.sentence
        assert "below 0.001" in found.sentence

    def test_with_few_categories_no_difference_can_be_significant(self):
        found = ranks(comparison(a=[0.9, 0.9, 0.9, 0.9], b=[0.5, 0.5, 0.5, 0.5]), "image_auroc")
        assert found.letters == ("a", "a")
        assert not found.has_power
        assert "no difference can be significant" in found.sentence
        assert np.isnan(found.friedman)

    def test_lower_may_be_better(self):
        low, high = [0.1] * 4, [0.2] * 4
        (found,) = compare(runs("a", high, "image_escape") + runs("b", low, "image_escape"))
        assert ranks(found, "image_escape", lower_is_better=True).names == ("b", "a")

    def test_a_detector_that_lacks_a_category_is_not_ranked(self):
        found = ranks(comparison(a=[0.9] * 4, b=[0.8] * 4, partial=[0.99] * 3), "image_auroc")
        assert set(found.names) == {"a", "b"}
        assert ranks(comparison(a=[0.9] * 4, partial=[0.9] * 3), "image_auroc") is None
        assert ranks(comparison(a=[0.9] * 2, b=[0.8] * 2), "image_auroc") is None

    def test_seeds_do_not_count_as_categories(self):
        several = [r for s in range(5) for r in runs("a", [0.9, 0.8, 0.7], seed=s) + runs("b", [0.8, 0.7, 0.6], seed=s)]
        found = ranks(compare(several)[0], "image_auroc")
        assert found.categories == 3
        assert found.p[0][1] == pytest.approx(0.25)


def test_pairs_are_corrected_together():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(10, 3)) + np.array([0, 0.5, 2])
    found = pair_values(values)
    raw = [wilcoxon(values[:, i] - values[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert [found[0, 1], found[0, 2], found[1, 2]] == pytest.approx(holm(raw))
    assert np.array_equal(found, found.T)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 14, 39, 300])
def test_the_chi_square_distribution_is_scipys(freedom):
    for value in (0.0, 1e-9, 0.5, 3.84, 10.0, 40.0, 200.0, 700.0):
        assert chi_square_survival(freedom, value) == pytest.approx(chdtrc(freedom, value), rel=1e-11, abs=1e-300)
