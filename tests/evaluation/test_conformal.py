"""Conformal thresholds keep to their shares, on average and with a confidence; intervals are those of SciPy."""

import numpy as np
import pytest
from scipy import stats

from iadbe.evaluation.conformal import clopper_pearson, conformal_threshold, guaranteed_rate, images_needed, percent

DRAWS = 4000


def test_a_new_part_is_rejected_as_rarely_as_promised_even_where_scores_tie():
    rng = np.random.default_rng(1)
    new = rng.integers(0, 12, (DRAWS, 30)).astype(np.float32)
    rejected = [part[-1] >= conformal_threshold(part[:-1], 0.1) for part in new]
    assert np.mean(rejected) <= 0.1 + 4 * (0.09 / DRAWS) ** 0.5


def test_the_threshold_is_the_quantile_with_its_tie_passing():
    values = np.random.default_rng(2).permutation(100)[:99].astype(np.float32)
    kth = np.sort(values)[int(np.ceil(100 * 0.95)) - 1]
    threshold = conformal_threshold(values, 0.05)
    assert kth < threshold
    assert not ((values > kth) & (values < threshold)).any()
    assert (values >= threshold).sum() == 99 - 95
    assert np.float32(threshold) == threshold, "so that comparing float32 scores with it is exact"


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_so_many_of_the_calibrations_keep_to_it(confidence):
    rng = np.random.default_rng(2)
    made = [conformal_threshold(rng.normal(size=200).astype(np.float32), 0.05, confidence) for _ in range(DRAWS)]
    kept = np.mean(stats.norm.sf(made) <= 0.05)
    rank = 1 + sum(stats.beta(r, 201 - r).ppf(confidence) <= 0.05 for r in range(2, 30))
    assert kept == pytest.approx(stats.beta(rank, 201 - rank).cdf(0.05), abs=4 * (0.2 * 0.8 / DRAWS) ** 0.5)
    assert kept >= confidence - 4 * (0.2 * 0.8 / DRAWS) ** 0.5


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (3, 17), (1, 400)])
def test_intervals_are_those_of_clopper_and_pearson(hits, count):
    rate, theirs = clopper_pearson(hits, count), stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    assert (rate.value, rate.low, rate.high) == pytest.approx((hits / count, theirs.low, theirs.high))


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.013])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_number_needed_is_just_enough(share, confidence):
    count = images_needed(share, confidence)
    assert 1 - (1 - share) ** count >= confidence > 1 - (1 - share) ** (count - 1)
    assert guaranteed_rate(share, count, confidence).high <= share + 1e-12


def test_a_share_in_percent_has_three_digits():
    assert (percent(0.05), percent(0.012345)) == ("5 %", "1.23 %")
