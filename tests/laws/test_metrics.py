"""Laws of every registered metric; a new metric file is tested here first."""

import math

import numpy as np
import pytest

from iadbe import registry
from iadbe.data.images import Images, View
from iadbe.dataset import Dataset
from iadbe.evaluation.measure import DetectorOutput, measure
from iadbe.evaluation.spilled_maps import SpilledMaps
from iadbe.metric import LEVELS, MASK_RULES, NEAREST, dialects_of, parse, resamplable
from iadbe.types import Sample, TrainingImage

ROWS = [
    f"{level}_{name}"
    for name in registry.names("metrics")
    for level in LEVELS
    if level in registry.card("metrics", name).get("of")
]
DIALECT_ROWS = [
    f"{row}.{dialect}" for row in ROWS for dialect in dialects_of(type(parse(row)[1]), row.partition("_")[0])
]
every_row = pytest.mark.parametrize("row", ROWS)
every_dialect = pytest.mark.parametrize("row", DIALECT_ROWS)


def draw(row, seed, gap=1.0):
    """Draw images or maps (float64) whose defects score ``gap`` higher on average; the first image is clean."""
    rng = np.random.default_rng(seed)
    shape = (60,) if row.startswith("image") else (6, 12, 10)
    truth = rng.random(shape) < 0.2
    truth[0], truth[-1] = False, True
    return truth, rng.normal(size=shape) + gap * truth


def held_out(row, seed=0):
    """Draw scores or maps of good images, with a larger deviation than the tested ones."""
    shape = (30,) if row.startswith("image") else (3, 12, 10)
    return 1.3 * np.random.default_rng(1000 + seed).normal(size=shape)


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
    truth, score = draw(row, 0, gap=2.0)
    more = {"held_out": held_out(row)}
    best, worst = (metric(truth, score + gap * truth, **more) for gap in (100.0, -100.0))
    assert best == pytest.approx(1.0 if metric.higher_is_better else 0.0)
    middle = metric(truth, score, **more)
    assert min(best, worst) < middle < max(best, worst)


@every_row
def test_constant_scores_carry_no_information(row):
    _, metric = parse(row)
    truth, score = draw(row, 1)
    good = held_out(row)
    flat = metric(truth, np.full_like(score, 7.5), held_out=np.full_like(good, 7.5))
    assert math.isfinite(flat)
    assert flat != pytest.approx(metric(truth, score + 100.0 * truth, held_out=good))
    assert flat == metric(truth, np.full_like(score, -3.0), held_out=np.full_like(good, -3.0))


@every_row
@pytest.mark.parametrize("only", [True, False])
def test_one_class_is_nan(row, only):
    truth, score = draw(row, 2)
    assert math.isnan(parse(row)[1](np.full_like(truth, only), score, held_out=held_out(row)))


@every_row
@pytest.mark.parametrize("seed", range(16))
def test_rank_based_metrics_are_invariant_under_monotone_transformations(row, seed):
    """Or, where a metric says that it does not keep to that, at least not their unit and zero."""
    _, metric = parse(row)
    truth, score = draw(row, seed)
    score, good = np.round(score, 1), np.round(held_out(row, seed), 1)  # ties must stay ties
    expected = metric(truth, score, held_out=good)
    keep = [lambda x: 3.0 * x - 40.0, lambda x: x.astype(np.float32)]
    keep += [lambda x: np.exp(4.0 * x), np.arctan] * metric.rank_based
    for changed in keep:
        assert metric(truth, changed(score), held_out=changed(good)) == pytest.approx(expected, abs=1e-12)


@every_row
@pytest.mark.parametrize("seed", range(4))
def test_permuting_or_duplicating_images_changes_nothing(row, seed):
    _, metric = parse(row)
    truth, score = draw(row, seed)
    more = {"held_out": held_out(row, seed)}
    expected = metric(truth, score, **more)
    order = np.random.default_rng(seed).permutation(len(truth))
    assert metric(truth[order], score[order], **more) == pytest.approx(expected, abs=1e-12)
    twice = metric(np.concatenate([truth] * 2), np.concatenate([score] * 2), **more)
    assert twice == pytest.approx(expected, abs=1e-12)


@every_row
def test_raw_scores_far_above_one_are_not_clamped(row):
    """A logistic curve in float32 would make one value of all of them."""
    _, metric = parse(row)
    truth, score = draw(row, 3)
    low, good = (20.0 + 3.0 * (x - score.min()) / np.ptp(score) for x in (score, held_out(row)))
    best = 1.0 if metric.higher_is_better else 0.0
    raised = np.where(truth, low + 40.0, low).astype(np.float32)
    assert metric(truth, raised, held_out=good) == pytest.approx(best)


@every_row
def test_invalid_input_is_an_error(row):
    _, metric = parse(row)
    truth, score = draw(row, 4)
    with pytest.raises(ValueError, match="shape"):
        metric(truth[1:], score)
    score.flat[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        metric(truth, score)


@every_row
def test_without_held_out_images_a_metric_that_needs_them_is_nan(row):
    _, metric = parse(row)
    truth, score = draw(row, 5)
    assert math.isnan(metric(truth, score)) == ("held_out" in metric.needs)


@every_dialect
def test_a_dialect_has_a_name_a_reason_and_a_number(row):
    level, metric = parse(row)
    assert f"{level}_{metric.label}" == row
    assert len(metric.dialects[metric.dialect]) > 20
    assert metric.dialect not in MASK_RULES
    truth, score = draw(row, 6)
    found = metric(truth, score, held_out=held_out(row))
    assert 0.0 <= found <= 1.0
    order = np.random.default_rng(0).permutation(len(truth))
    assert metric(truth[order], score[order], held_out=held_out(row)) == pytest.approx(found, abs=1e-12)


@every_dialect
def test_where_a_dialect_is_not_defined_it_is_nan(row):
    _, metric = parse(row)
    truth, score = draw(row, 7)
    for only in (True, False):
        assert math.isnan(metric(np.full_like(truth, only), score, held_out=held_out(row)))
    flat = metric(truth, np.full_like(score, 2.0), held_out=held_out(row))
    assert math.isnan(flat) or 0.0 <= flat <= 1.0  # and no warning, no crash


@pytest.mark.parametrize("row", [r for r in (*ROWS, *DIALECT_ROWS) if r.startswith("pixel")])
@pytest.mark.parametrize("rule", MASK_RULES)
def test_every_pixel_row_takes_a_mask_rule(row, rule):
    level, metric = parse(f"{row}.{rule}")
    assert metric.mask == rule
    assert f"{level}_{metric.label}" == (row if rule == NEAREST else f"{row}.{rule}")


class _Drawn(Dataset):
    """Images of 48 x 48, with the given masks; a good one has None."""

    categories = ("c",)

    def __init__(self, masks):
        self.masks = masks

    def samples(self):
        kinds = ["good" if m is None else "spot" for m in self.masks]
        return tuple(Sample(str(i), "c", "test", k, f"{i}.png", "m.png") for i, k in enumerate(kinds))

    def mask(self, sample):
        return self.masks[int(sample.id)]


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("row", [r for r in (*ROWS, *DIALECT_ROWS) if r.startswith("pixel")])
def test_a_mask_that_vanishes_in_the_view_is_left_out(row, rule):
    """Half of the defects lie outside the central crop; the value is that of the other images alone."""
    rng = np.random.default_rng(8)
    masks: list = [None, None, *(np.zeros((48, 48), bool) for _ in range(6))]
    for n, mask in enumerate(masks[2:]):
        place = (slice(20 + n, 26 + n), slice(15, 24)) if n % 2 else (slice(0, 3), slice(2, 40))
        mask[place] = True
    shown = Images(dataset := _Drawn(masks), [TrainingImage(s) for s in dataset.samples()], View(48, 32))
    maps = rng.normal(size=(8, 32, 32)).astype(np.float32)
    maps += 2 * np.stack([np.zeros((32, 32), bool) if m is None else shown.view(m) for m in masks])
    maps[[2, 4, 6]] += 9  # would ruin every metric if these pixels counted as clean
    kept = [0, 1, 3, 5, 7]
    good = rng.normal(size=(3, 32, 32)).astype(np.float32)
    name = f"{row.partition('@')[0]}.{rule}"
    every, notes = measure(DetectorOutput(maps.max((1, 2)), maps, good.max((1, 2)), good), shown, [name])
    alone = DetectorOutput(maps[kept].max((1, 2)), maps[kept], good.max((1, 2)), good)
    expected, _ = measure(alone, shown.subset(kept), [name])
    assert every == pytest.approx(expected)
    assert any("3 of 6 defective images have no defect pixel in the view" in note for note in notes)


@pytest.mark.parametrize("row", [*ROWS, *DIALECT_ROWS])
def test_every_row_has_a_mean_over_kinds(row):
    plain, at, parameter = row.partition("@")
    level, metric = parse(f"{plain}.kinds{at}{parameter}")
    assert metric.by_kind
    assert f"{level}_{metric.label}" == f"{plain}.kinds{at}{parameter}"
    assert resamplable(f"{plain}.kinds{at}{parameter}") is None


@pytest.mark.parametrize("row", [r for r in (*ROWS, *DIALECT_ROWS) if r.startswith("pixel")])
def test_maps_that_are_read_one_by_one_give_the_same_value(row):
    rng = np.random.default_rng(9)
    masks: list = [None, None, *(np.zeros((32, 32), bool) for _ in range(3))]
    for n, mask in enumerate(masks[2:]):
        mask[4 + n : 12 + n, 5:14] = True
    shown = Images(dataset := _Drawn(masks), [TrainingImage(s) for s in dataset.samples()], View(32))
    counts = np.ones((32, 32), bool)
    counts[:6] = False
    dataset.region = lambda sample: None if sample.id == "0" else counts
    maps, good = rng.normal(size=(5, 32, 32)).astype(np.float32), rng.normal(size=(3, 32, 32)).astype(np.float32)
    maps += np.stack([np.zeros((32, 32), bool) if m is None else m for m in masks])
    apart = shown.subset([0, 1, 1])
    rows, streamed = (
        measure(DetectorOutput(maps.max((1, 2)), first, good.max((1, 2)), second), shown, [row], None, apart)
        for first, second in ((maps, good), (_spilled(maps), _spilled(good)))
    )
    assert streamed == (pytest.approx(rows[0], nan_ok=True, rel=1e-9), rows[1])
    assert rows[0]


def _spilled(maps):
    made = SpilledMaps(maps.shape)
    made.write(0, maps)
    return made
