import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fake_results import scores
from iadbe.evaluation import confidence
from iadbe.evaluation.confidence import (
    CategoryScores,
    _weighted,
    auroc,
    bootstrap,
    category_scores,
    differ_significantly,
    percentile_interval,
)
from iadbe.metric import parse


def made(rng, good=30, bad=40, shift=1.0, seeds=1, name="p"):
    truth = np.repeat([False, True], [good, bad])
    score = rng.normal(size=(seeds, good + bad)) + shift * truth
    return CategoryScores(tuple(f"{name}{i:04d}" for i in range(good + bad)), truth, score)


def test_auroc_equals_scikit_learn_with_ties_and_seeds():
    rng = np.random.default_rng(0)
    one = made(rng, seeds=3)
    one = one._replace(score=one.score.round(1))
    assert auroc(one) == pytest.approx(np.mean([roc_auc_score(one.truth, s) for s in one.score]))
    assert np.isnan(auroc(one._replace(truth=np.zeros(70, bool))))


def test_each_resample_is_the_auroc_of_what_was_drawn():
    rng = np.random.default_rng(1)
    one = made(rng, good=7, bad=5, seeds=2)
    one = one._replace(score=one.score.round(0))  # many ties
    good, bad = rng.multinomial(7, np.full(7, 1 / 7), 20), rng.multinomial(5, np.full(5, 1 / 5), 20)
    for value, counts in zip(_weighted(one, good, bad), np.hstack([good, bad]), strict=True):
        drawn = np.repeat(np.arange(12), counts)
        assert value == pytest.approx(np.mean([roc_auc_score(one.truth[drawn], s[drawn]) for s in one.score]))


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(("good", "bad", "seeds"), [(7, 5, 1), (40, 60, 3), (1, 90, 2), (300, 200, 1)])
def test_the_auroc_of_pairs_is_that_of_the_sorted_scores(monkeypatch, good, bad, seeds, groups):
    rng = np.random.default_rng(good)
    one = made(rng, good=good, bad=bad, seeds=seeds)
    one = one._replace(score=one.score.round(1))
    if groups:
        one = one._replace(groups=tuple(f"{t}{n // 3}" for n, t in enumerate(one.truth)))
    pairs = bootstrap([one], resamples=200)
    monkeypatch.setattr(confidence, "PAIRS", 0)
    assert bootstrap([one], resamples=200) == pytest.approx(pairs, abs=1e-9 if groups else 1e-15, nan_ok=True)
    monkeypatch.setattr(confidence, "LARGE", 1)
    assert bootstrap([one], resamples=200) == pytest.approx(pairs, abs=1e-9 if groups else 1e-15, nan_ok=True)


def test_an_image_may_be_drawn_more_often_than_a_byte_counts():
    one = made(np.random.default_rng(4), good=5, bad=5)
    drawn_good, drawn_bad = np.full((3, 5), 300), np.full((3, 5), 300)
    assert confidence._by_image(drawn_good).tolist() == drawn_good.tolist()
    scaled = _weighted(one, confidence._by_image(drawn_good) // 300, confidence._by_image(drawn_bad) // 300)
    assert scaled == pytest.approx(np.full(3, auroc(one)))


@pytest.mark.parametrize("name", ["auroc", "ap", "f1max", "overkill", "overkill@20%", "escape", "escape@20%"])
def test_every_metric_of_counts_is_that_of_what_was_drawn(name):
    rng = np.random.default_rng(2)
    one = made(rng, good=9, bad=8, seeds=2)
    one = one._replace(score=one.score.round(1))
    _, metric = parse(f"image_{name}")
    good, bad = rng.multinomial(9, np.full(9, 1 / 9), 30), rng.multinomial(8, np.full(8, 1 / 8), 30)
    for value, counts in zip(_weighted(one, good, bad, metric), np.hstack([good, bad]), strict=True):
        drawn = np.repeat(np.arange(17), counts)
        assert value == pytest.approx(np.mean([metric(one.truth[drawn], s[drawn]) for s in one.score]), abs=1e-12)


def test_metrics_share_their_draws():
    one = made(np.random.default_rng(3), good=40, bad=40)
    auroc, escape = (bootstrap([one], metric=parse(f"image_{n}")[1]) for n in ("auroc", "escape@20%"))
    assert np.array_equal(auroc, bootstrap([one]))
    assert np.corrcoef(auroc, escape)[0, 1] < -0.7  # the luckier the draw, the fewer escape


def test_the_interval_covers_the_true_value_about_as_often_as_stated():
    rng = np.random.default_rng(3)
    truth = 0.7602499389065233  # of two normal distributions one standard deviation apart
    held = 0
    for i in range(150):
        low, high = percentile_interval(bootstrap([made(rng, 60, 60, name=f"{i}-")], resamples=300))
        held += low <= truth <= high
    assert 0.89 <= held / 150 <= 0.99


def test_more_images_make_it_narrower():
    rng = np.random.default_rng(4)
    few, many = (percentile_interval(bootstrap([made(rng, n, n)])) for n in (20, 500))
    assert many.high - many.low < (few.high - few.low) / 3


def test_the_same_images_are_drawn_for_every_detector_whatever_their_order():
    rng = np.random.default_rng(5)
    one = made(rng)
    shuffled = [(i, bool(t), [s]) for i, t, s in zip(one.ids, one.truth, one.score[0], strict=True)]
    rng.shuffle(shuffled)
    assert np.array_equal(bootstrap([one]), bootstrap([category_scores(shuffled)]))
    assert not np.array_equal(bootstrap([one]), bootstrap([one], seed=1))


def test_a_paired_difference_can_be_significant_while_intervals_overlap():
    rng = np.random.default_rng(6)
    better = made(rng, 60, 60, shift=1.0)
    worse = better._replace(score=better.score - 0.35 * better.truth)  # on every single image a little worse
    high, low = bootstrap([better]), bootstrap([worse])
    assert percentile_interval(low).high > percentile_interval(high).low
    assert differ_significantly(high, low)
    assert differ_significantly(low, high)
    noisy = better._replace(score=better.score + rng.normal(scale=0.2, size=better.score.shape))
    assert not differ_significantly(high, bootstrap([noisy]))
    assert not differ_significantly(high, high)


def test_categories_are_averaged_and_those_of_one_class_left_out():
    rng = np.random.default_rng(7)
    one, two = made(rng, name="a"), made(rng, name="b", shift=3)
    none = made(rng, good=0, name="c")
    assert np.allclose(bootstrap([one, two, none]), (bootstrap([one]) + bootstrap([two])) / 2)
    assert np.isnan(bootstrap([none])).all()


def test_large_test_sets_are_drawn_in_chunks(monkeypatch):
    one = made(np.random.default_rng(8))
    monkeypatch.setattr("iadbe.evaluation.confidence.CHUNK", 700)
    confidence._draws.cache_clear()
    parts = bootstrap([one], resamples=2003)
    assert parts.shape == (2003,)
    assert np.mean(parts) == pytest.approx(auroc(one), abs=0.005)
    assert len(np.unique(parts)) > 200


def test_of_scores_from_a_run():
    images = [(s.sample, s.defect != "good", [s.score]) for s in scores(shift=5.0)]
    assert auroc(category_scores(images)) > 0.99


class TestGroups:
    def test_without_groups_of_two_the_draws_are_those_of_images(self):
        one = made(np.random.default_rng(9))
        images = [(i, bool(t), [s]) for i, t, s in zip(one.ids, one.truth, one.score[0], strict=True)]
        assert category_scores(images).groups == category_scores(images, {i: "" for i in one.ids}).groups == ()
        assert category_scores(images, {"p0003": "x"}).groups[2:4] == ("image p0002", "group x")

    def test_each_draw_is_the_metric_of_whole_groups(self):
        rng = np.random.default_rng(10)
        one = made(rng, good=9, bad=8, seeds=2)
        one = one._replace(score=one.score.round(1), groups=tuple("aaabbccdefffgghii"))
        sets = []
        for metric in ("auroc", "ap", "f1max", "overkill", "escape@20%"):
            _, found = parse(f"image_{metric}")
            values = bootstrap([one], resamples=300, metric=found)
            assert np.isfinite(values).all()
            assert ((values >= 0) & (values <= 1)).all()
            sets.append(values)
        assert len(np.unique(sets[0].round(9))) < 300  # few groups give few different draws
        number, sizes = np.array([0, 0, 1]), np.array([2, 1])
        assert confidence._expanded(np.array([[1, 1], [2, 0], [0, 2]]), number, sizes).tolist() == [
            [1, 1, 1],
            [1.5, 1.5, 0],
            [0, 0, 3],
        ]

    def test_copies_of_images_do_not_make_a_difference_significant(self):
        rng = np.random.default_rng(11)
        first = made(rng, 8, 8, shift=1.0)
        second = first._replace(score=first.score - 0.5 * first.truth * rng.random(16))

        def copied(case, groups):
            ids = tuple(f"{i}-{n}" for n in range(30) for i in case.ids)
            own = tuple(i for _ in range(30) for i in case.ids) if groups else ()
            return CategoryScores(ids, np.tile(case.truth, 30), np.tile(case.score, 30), own)

        once, many = (percentile_interval(bootstrap([second]) - bootstrap([first])) for _ in range(2))
        apart = percentile_interval(bootstrap([copied(second, False)]) - bootstrap([copied(first, False)]))
        together = percentile_interval(bootstrap([copied(second, True)]) - bootstrap([copied(first, True)]))
        assert apart.high - apart.low < (once.high - once.low) / 3
        assert together.high - together.low == pytest.approx(many.high - many.low, rel=0.15)

    def test_one_group_of_a_class_allows_no_inference(self):
        one = made(np.random.default_rng(12), shift=3.0)
        same = one._replace(groups=tuple("good" if not t else i for i, t in zip(one.ids, one.truth, strict=True)))
        values = bootstrap([same])
        assert np.isnan(values).all()
        assert not differ_significantly(values, bootstrap([same._replace(score=-same.score)]))


def test_detectors_are_resampled_together_as_they_are_alone():
    rng = np.random.default_rng(5)
    first = [made(rng, 20, 30, name=f"{n}-") for n in "cab"]
    second = [c._replace(score=c.score + rng.normal(size=c.score.shape)) for c in first[:2]]
    none = [first[0]._replace(truth=np.ones(50, bool))]
    confidence._draws.cache_clear()
    together = confidence.bootstrap_all([first, second, none, []])
    assert confidence._draws.cache_info().misses == 3  # the draws of each category are made once
    for found, cases in zip(together, (first, second, none, []), strict=True):
        assert np.array_equal(found, bootstrap(cases), equal_nan=True)
    seen = []
    with pytest.raises(InterruptedError):
        confidence.bootstrap_all([first], check=lambda: seen.append(1) or (_ for _ in ()).throw(InterruptedError))
    assert seen == [1]
