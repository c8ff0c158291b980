"""What every metric on the shelf must obey; a new file is tested here before its author writes a test."""

import math

import numpy as np
import pytest

from iadbe import registry
from iadbe.metric import LEVELS, parse

ROWS = [
    f"{level}_{name}"
    for name in registry.names("metrics")
    for level in LEVELS
    if level in registry.card("metrics", name).get("of")
]
every_row = pytest.mark.parametrize("row", ROWS)


def draw(row, seed, gap=1.0):
    """Draw pictures or maps (float64) whose defects score ``gap`` higher on average; the first picture is clean."""
    rng = np.random.default_rng(seed)
    shape = (60,) if row.startswith("image") else (6, 12, 10)
    truth = rng.random(shape) < 0.2
    truth[0], truth[-1] = False, True
    return truth, rng.normal(size=shape) + gap * truth


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_card_says_what_a_table_needs(name):
    card = registry.card("metrics", name)
    assert card.get("paper")
    assert 1900 < card.get("year") < 2100
    assert card.get("of")
    assert card.get("of") <= set(LEVELS)
    assert isinstance(card.get("higher_is_better"), bool)
    assert card.get("version") >= 1
    assert "Paper:" in card.doc
    assert "Differs:" in card.doc
    for parameter in card.parameters:
        assert not parameter.required
        assert parameter.doc


@every_row
def test_row_name_is_its_label(row):
    level, metric = parse(row)
    assert f"{level}_{metric.label}" == row


@every_row
def test_perfect_is_best_and_reversed_is_worst(row):
    _, metric = parse(row)
    truth, score = draw(row, 0)
    best, worst = metric(truth, score + 100.0 * truth), metric(truth, score - 100.0 * truth)
    assert best == pytest.approx(1.0 if metric.higher_is_better else 0.0)
    middle = metric(truth, score)
    assert min(best, worst) < middle < max(best, worst)


@every_row
def test_constant_tells_nothing_apart(row):
    _, metric = parse(row)
    truth, score = draw(row, 1)
    flat = metric(truth, np.full_like(score, 7.5))
    assert math.isfinite(flat)
    assert flat != pytest.approx(metric(truth, score + 100.0 * truth))
    assert flat == metric(truth, np.full_like(score, -3.0))


@every_row
@pytest.mark.parametrize("only", [True, False])
def test_one_class_is_nan(row, only):
    truth, score = draw(row, 2)
    assert math.isnan(parse(row)[1](np.full_like(truth, only), score))


@every_row
@pytest.mark.parametrize("seed", range(16))
def test_only_the_order_of_scores_counts(row, seed):
    _, metric = parse(row)
    truth, score = draw(row, seed)
    score = np.round(score, 1)  # ties must stay ties
    expected = metric(truth, score)
    for changed in (3.0 * score - 40.0, np.exp(4.0 * score), np.arctan(score), score.astype(np.float32)):
        assert metric(truth, changed) == pytest.approx(expected, abs=1e-12)


@every_row
@pytest.mark.parametrize("seed", range(4))
def test_order_of_pictures_does_not_count_and_twice_the_pictures_is_the_same(row, seed):
    _, metric = parse(row)
    truth, score = draw(row, seed)
    expected = metric(truth, score)
    order = np.random.default_rng(seed).permutation(len(truth))
    assert metric(truth[order], score[order]) == pytest.approx(expected, abs=1e-12)
    assert metric(np.concatenate([truth] * 2), np.concatenate([score] * 2)) == pytest.approx(expected, abs=1e-12)


@every_row
def test_raw_scores_far_above_one_are_not_clamped(row):
    """A logistic curve in float32 would make one value of all of them."""
    _, metric = parse(row)
    truth, score = draw(row, 3)
    low = 20.0 + 9.0 * (score - score.min()) / np.ptp(score)
    best = 1.0 if metric.higher_is_better else 0.0
    assert metric(truth, np.where(truth, low + 11.0, low).astype(np.float32)) == pytest.approx(best)


@every_row
def test_what_cannot_be_ranked_is_refused(row):
    _, metric = parse(row)
    truth, score = draw(row, 4)
    with pytest.raises(ValueError, match="shape"):
        metric(truth[1:], score)
    score.flat[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        metric(truth, score)
