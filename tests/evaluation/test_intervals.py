import itertools

import numpy as np
import pytest

from iadbe.evaluation import intervals
from iadbe.evaluation.confidence import CategoryScores
from iadbe.evaluation.intervals import auroc_interval, moments, score_interval
from iadbe.metric import parse

NAMES = ("auroc", "ap", "f1max", "overkill", "overkill@20%", "escape", "escape@20%")


def named(name):
    return parse(f"image_{name}")[1]


def made(rng, good=20, bad=63, shift=2.3, seeds=1, name="i"):
    truth = np.repeat([False, True], [good, bad])
    score = rng.normal(size=(seeds, good + bad)) + shift * truth
    return CategoryScores(tuple(f"{name}{i:04d}" for i in range(good + bad)), truth, score)


def improved(rng, case, ties):
    """Return the case with some defective images scored higher, or some good ones lower, in one of its seeds."""
    score = case.score.copy()
    row = int(rng.integers(len(score)))
    for i in rng.choice(case.truth.size, size=int(rng.integers(1, 4)), replace=False):
        if ties and rng.random() < 0.5:
            to = rng.choice(score[row])  # ties come and go
            score[row, i] = max(to, score[row, i]) if case.truth[i] else min(to, score[row, i])
        else:
            score[row, i] += rng.exponential() * (1 if case.truth[i] else -1)
    return case._replace(score=score)


@pytest.mark.parametrize("name", NAMES)
def test_a_better_ranking_of_the_same_images_never_has_a_lower_bound(name):
    rng, metric = np.random.default_rng(1), named(name)
    sign = 1 if metric.higher_is_better else -1
    ties = name != "ap"  # AP itself falls where one of two defective images of equal scores is raised below a good one
    sizes = [(7, 9), (14, 40), (20, 63)]
    for _ in range(25):
        cases = [
            made(rng, *sizes[int(rng.integers(3))], shift=rng.uniform(0, 4), seeds=int(rng.integers(1, 3)))
            for _ in range(int(rng.integers(1, 5)))
        ]
        cases = [c._replace(score=c.score.round(int(rng.integers(0, 3)))) for c in cases] if ties else cases
        before = score_interval(cases, metric)
        for _ in range(12):
            k = int(rng.integers(len(cases)))
            cases[k] = improved(rng, cases[k], ties)
            after = score_interval(cases, metric)
            worst, best = (after.low - before.low, after.high - before.high)
            assert sign * worst >= -1e-12
            assert sign * best >= -1e-12
            before = after


@pytest.mark.parametrize("name", NAMES)
def test_bounds_follow_the_value_alone_and_rise_with_it(name):
    metric = named(name)
    design = intervals._Design((type(metric), metric.label), (14, 40), (14, 40), 0.95, metric)
    values = np.linspace(0, 1, 300) - (0 if metric.higher_is_better else 1)
    for bounds, sign in zip(intervals._bounds(design), (1, -1), strict=True):
        low = np.array([sign * v - bounds.distances(sign * v) for v in values])  # (values, shares)
        assert (sign * np.diff(low, axis=0) >= -1e-12).all()
        assert (np.diff(low, axis=1) <= 1e-12).all()  # the larger the share, the farther


def test_one_discordant_pair_does_not_narrow_the_interval():
    truth = np.repeat([False, True], [20, 63])
    right = np.arange(83.0)
    wrong = right.copy()
    wrong[[19, 20]] = wrong[[20, 19]]
    none, one = (auroc_interval([CategoryScores((), truth, s[None])]) for s in (right, wrong))
    assert none == pytest.approx((0.949, 1.0), abs=5e-4)
    assert one == pytest.approx((0.947, 0.9999), abs=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_interval_contains_the_value_and_lies_in_0_to_1(name):
    rng, metric = np.random.default_rng(2), named(name)
    for shift in (-1.0, 0.0, 1.0, 3.0, 99.0):
        cases = [made(rng, shift=shift, seeds=2), made(rng, 14, 40, shift=shift)]
        value = np.mean([np.mean([metric(c.truth, s) for s in c.score]) for c in cases])
        low, high = score_interval(cases, metric)
        assert 0 <= low <= value + 1e-12
        assert value - 1e-12 <= high <= 1
        assert high > low


def test_the_auroc_bounds_solve_the_score_equation():
    rng = np.random.default_rng(3)
    one = made(rng)
    value = named("auroc")(one.truth, one.score[0])
    mean, deviation = moments(named("auroc"), 20, 63)
    for bound, sign in zip(auroc_interval([one]), (1, -1), strict=True):
        assert sign * (value - bound) == pytest.approx(1.95996 * np.interp(bound, mean, deviation), rel=1e-3)


def test_the_formula_for_the_auroc_is_what_simulation_gives():
    plain, simulated = moments(named("auroc"), 14, 40), intervals._simulated_moments(named("auroc"), 14, 40)
    assert np.allclose(plain.mean, simulated.mean, atol=0.006)
    assert np.allclose(plain.deviation, simulated.deviation, atol=0.006)


def test_moments_are_kept_for_the_code_that_made_them(tmp_path, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path))
    computed, original = [], intervals._simulated_moments
    monkeypatch.setattr(intervals, "_simulated_moments", lambda *given: computed.append(given[1:]) or original(*given))
    first = moments(named("ap"), 14, 40)
    assert np.array_equal(moments(named("ap"), 14, 40), first)
    assert np.array_equal(first, original(named("ap"), 14, 40))
    assert computed == [(14, 40)]
    moments(named("escape@20%"), 14, 40)
    moments(named("ap"), 15, 40)
    assert computed == [(14, 40), (14, 40), (15, 40)]
    (file,) = (tmp_path / "moments").glob("ap-14-40-*.npy")
    for damage in (b"", file.read_bytes()[:100]):
        file.write_bytes(damage)
        assert np.array_equal(moments(named("ap"), 14, 40), first)
    np.save(file, np.full((2, 5), 0.5))
    assert np.array_equal(moments(named("ap"), 14, 40), first)
    assert len(computed) == 6
    monkeypatch.setattr(intervals.Path, "read_bytes", lambda path: b"other code")
    moments(named("ap"), 14, 40)
    assert len(computed) == 7
    assert len(list((tmp_path / "moments").glob("ap-14-40-*"))) == 1  # those of the earlier code are gone
    assert sorted(f.suffix for f in (tmp_path / "moments").iterdir()) == [".npy"] * 3


def test_moments_where_nothing_can_be_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "file"))
    assert np.array_equal(moments(named("ap"), 14, 40), intervals._simulated_moments(named("ap"), 14, 40))
    monkeypatch.setattr(intervals.inspect, "getfile", lambda _: (_ for _ in ()).throw(TypeError("built-in")))
    assert np.array_equal(moments(named("ap"), 14, 40), intervals._simulated_moments(named("ap"), 14, 40))


@pytest.mark.parametrize("name", NAMES)
def test_simulated_counts_are_those_of_a_curve(name):
    rng, metric = np.random.default_rng(4), named(name)
    scores = rng.standard_normal((30, 25)).astype(np.float32)
    truth = np.repeat([False, True], [9, 16])
    for value, row in zip(metric.from_counts(intervals.simulated_counts(scores, 9, 1.5)), scores, strict=True):
        assert value == pytest.approx(metric(truth, row + np.float32(1.5) * truth))


def test_the_sum_over_categories_is_the_largest_over_all_splits(monkeypatch):
    monkeypatch.setattr(intervals, "SHARES", 6)
    rows = np.random.default_rng(5).random((3, 7))
    splits = (s for s in itertools.product(range(7), repeat=3) if sum(s) == 6)
    assert intervals._largest_sum(list(rows)) == max(sum(r[i] for r, i in zip(rows, s, strict=True)) for s in splits)


def test_more_images_or_more_categories_make_it_narrower():
    def width(cases):
        low, high = auroc_interval(cases)
        return high - low

    few, many = (made(np.random.default_rng(6), n, n, shift=1.0) for n in (20, 500))
    assert width([many]) < width([few]) / 3
    assert width([few] * 9) == pytest.approx(width([few]) / 3, rel=0.1)


def test_a_hard_category_of_few_images_is_not_averaged_away():
    rng = np.random.default_rng(7)
    hard, easy = made(rng, 14, 40, shift=1.0), made(rng, 100, 100, shift=99)
    alone, among = auroc_interval([hard]), auroc_interval([hard] + [easy] * 9)
    assert among.high - among.low > (alone.high - alone.low) / 10


def test_it_does_not_depend_on_ids_and_leaves_out_cases_of_one_class():
    rng = np.random.default_rng(8)
    one, none = made(rng), made(rng, good=0)
    assert auroc_interval([one, none]) == auroc_interval([one._replace(ids=one.ids[::-1])])
    assert auroc_interval([none]) is None
    assert auroc_interval([]) is None


@pytest.mark.parametrize("name", ["auroc", "ap", "f1max", "overkill", "escape"])
@pytest.mark.parametrize("shift", [1.0448948, 2.3261743, 3.2899, 4.0703])  # AUROC .77, .95, .99, .998
def test_coverage_is_nominal(name, shift):
    rng, metric = np.random.default_rng(9), named(name)
    others = rng.standard_normal((20_000, 83), dtype=np.float32)
    truth = float(np.mean(metric.from_counts(intervals.simulated_counts(others, 20, shift))))
    found = [score_interval([made(rng, shift=shift)], metric) for _ in range(400)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in found]) <= 0.985


def test_images_of_one_group_count_as_one():
    one = made(np.random.default_rng(10), 40, 60)
    pairs = one._replace(groups=tuple(f"part {i // 2}" for i in range(100)))
    halved = moments(named("auroc"), 20, 30).deviation
    low, high = auroc_interval([pairs])
    mean, value = moments(named("auroc"), 40, 60).mean, named("auroc")(one.truth, one.score[0])
    assert value - low == pytest.approx(1.95996 * np.interp(low, mean, halved), rel=1e-3)
    alone = auroc_interval([one._replace(groups=one.ids)])
    assert alone == auroc_interval([one])
    assert low < alone.low < alone.high < high


def test_groups_of_unequal_size_are_weighted_by_kish():
    one = made(np.random.default_rng(11), 6, 4)
    groups = ("a", "a", "a", "b", "c", "d", *"efgh")
    assert intervals._effective(one._replace(groups=groups)) == (36 // 12, 4)


def test_interpolation_is_that_of_scipy():
    from scipy.interpolate import PchipInterpolator

    rng = np.random.default_rng(0)
    x = intervals.SEPARATIONS.astype(float)
    for y in (np.sort(rng.random(len(x))), rng.random(len(x)), np.minimum(np.arange(len(x)) / 9, 1.0), 0 * x):
        expected = PchipInterpolator(x, y)(intervals.GRID)
        np.testing.assert_allclose(intervals.monotone_cubic(x, y, intervals.GRID), expected, rtol=0, atol=1e-12)
