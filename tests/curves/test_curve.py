import numpy as np
import pytest
from scipy.ndimage import label

from iadbe.curves import curve as curve_module
from iadbe.curves.curve import Curve, allowed_count, area, region_weights
from iadbe.metric import parse


def draw(seed, shape=(5, 9, 8), levels=None, dtype=np.float32):
    """Draw maps whose defects score somewhat higher; ``levels`` makes heavy ties."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.2
    truth[0] = False
    score = rng.normal(size=shape) + truth
    return truth, (np.round(score * levels) / levels if levels else score).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_brute_force(seed, levels, dtype):
    truth, score = draw(seed, levels=levels, dtype=dtype)
    curve = Curve(truth, score)
    thresholds = sorted(set(score[truth].tolist()), reverse=True)
    assert curve.thresholds.tolist() == thresholds
    assert curve.tp.tolist() == [np.sum(score[truth] >= t) for t in thresholds]
    assert curve.fp.tolist() == [np.sum(score[~truth] >= t) for t in thresholds]
    assert curve.fp_above.tolist() == [np.sum(score[~truth] > t) for t in thresholds]
    assert (curve.positives, curve.negatives) == (truth.sum(), (~truth).sum())


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_overlap_is_the_mean_over_regions(seed, levels):
    truth, score = draw(seed, levels=levels)
    curve = Curve(truth, score)
    shares = []
    for mask, image in zip(truth, score, strict=True):
        labels, found = label(mask, structure=np.ones((3, 3)))
        shares += [[np.mean(image[labels == r] >= t) for t in curve.thresholds] for r in range(1, found + 1)]
    np.testing.assert_allclose(curve.pro, np.mean(shares, axis=0), atol=1e-12)
    assert curve.pro[-1] == 1.0


def test_regions_are_8_connected_within_one_image():
    truth = np.zeros((2, 4, 4), dtype=bool)
    truth[0, [0, 1], [0, 1]] = True  # touching at a corner: one region of two pixels
    truth[1, 0, 0] = truth[1, 3, 3] = True  # far apart: two regions, and none with the image before
    score = np.where(truth, 0.0, -1.0)
    score[0, 0, 0] = 1.0
    assert Curve(truth, score).pro == pytest.approx([1 / 6, 1.0])


def test_corners_go_from_0_0_to_1_1_in_flat_and_rising_segments():
    truth = np.array([[[True, True, False, False, False, False]]])
    score = np.array([[[2.0, 1.0, 3.0, 1.0, 1.0, 0.0]]])
    curve = Curve(truth, score)
    (rate, overlap), (last_rate, last_overlap) = curve.corners(curve.pro)
    assert rate.tolist() == [0, 0.25, 0.25, 0.25, 0.75]
    assert overlap.tolist() == [0, 0, 0.5, 0.5, 1]
    assert (last_rate.tolist(), last_overlap.tolist()) == ([0.75, 1], [1, 1])


@pytest.mark.parametrize("level", ["image", "pixel"])
def test_parts_of_the_thresholds_change_nothing(level, monkeypatch):
    """However few thresholds are computed with at a time; ties lie across two parts."""
    truth, score = draw(1)
    truth, score = (truth, score.round(1)) if level == "pixel" else (truth.ravel(), score.ravel().round(1))
    names = ["auroc", "ap", "f1max", *(["aupro", "aupro@5%", "iou_max"] if level == "pixel" else [])]
    metrics = [parse(f"{level}_{name}")[1] for name in names]
    whole = [metric.value(Curve(truth, score)) for metric in metrics]
    monkeypatch.setattr(curve_module, "PART", 3)
    assert Curve(truth, score).thresholds.size > 9
    assert [metric.value(Curve(truth, score)) for metric in metrics] == pytest.approx(whole, rel=1e-12)


def test_minus_zero_is_zero():
    curve = Curve(np.array([True, True, False]), np.array([0.0, -0.0, -0.0], dtype=np.float32))
    assert (curve.tp.tolist(), curve.fp.tolist(), curve.fp_above.tolist()) == ([2], [1], [0])


def test_inputs_are_neither_copied_nor_changed():
    truth, score = draw(0)
    before = truth.copy(), score.copy()
    truth.flags.writeable = score.flags.writeable = False
    curve = Curve(truth, score)
    assert curve.score is score
    assert curve.pro.size == curve.thresholds.size
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(score, before[1])


def test_integer_scores_are_exact_and_array_views_work():
    truth, score = draw(1)
    ranks = score.ravel().argsort().argsort().reshape(score.shape)
    expected = Curve(truth, score)
    assert Curve(truth, ranks).fp.tolist() == expected.fp.tolist()
    assert Curve(truth, ranks.astype(np.float16)).thresholds.dtype == np.float64
    turned = Curve(truth.transpose(0, 2, 1), score.transpose(0, 2, 1))
    np.testing.assert_allclose(turned.pro, expected.pro, atol=1e-12)


@pytest.mark.parametrize("shape", [(0,), (0, 4, 4)])
def test_an_empty_ranking_has_no_classes(shape):
    curve = Curve(np.zeros(shape, dtype=bool), np.zeros(shape))
    assert not curve.has_both
    assert curve.thresholds.size == curve.fp.size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_an_error(bad):
    truth, score = draw(2)
    score[1, 2, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        Curve(truth, score)


@pytest.mark.parametrize(
    ("truth", "score", "says"),
    [
        (np.zeros(4, dtype=bool), np.zeros(5), "one shape"),
        (np.zeros((2, 4, 4), dtype=bool), np.zeros((2, 16)), "one shape"),
        (np.zeros((4, 4), dtype=bool), np.zeros((4, 4)), r"\(N, H, W\)"),
        (np.zeros(4, dtype=np.uint8), np.zeros(4), "bool"),
        (np.zeros(4, dtype=bool), np.zeros(4, dtype=complex), "real"),
        (np.zeros(4, dtype=bool), np.array(["a"] * 4), "real"),
    ],
)
def test_wrong_shapes_and_types_are_an_error(truth, score, says):
    with pytest.raises(ValueError, match=says):
        Curve(truth, score)


def test_images_have_no_regions():
    curve = Curve(np.array([True, False]), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="maps"):
        _ = curve.pro


def test_held_out_thresholds_reject_at_most_the_share():
    truth, score = np.array([True, False]), np.array([1.0, 0.0])
    held_out = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0])
    curve = Curve(truth, score, held_out)
    for share in (0.0, 0.05, 0.1, 0.3, 0.55, 0.99):
        threshold = curve.held_out_threshold(share)
        assert np.mean(held_out > threshold) <= share + 1e-12
        lower = held_out[held_out < threshold]
        assert not lower.size or np.mean(held_out > lower.max()) > share  # the lowest that does
    assert np.isnan(Curve(truth, score).held_out_threshold(0.1))
    with pytest.raises(ValueError, match="held-out"):
        Curve(truth, score, np.array([np.inf]))


def test_a_share_of_a_count_ignores_float_rounding():
    assert [allowed_count(0.1, 30), allowed_count(0.29, 100), allowed_count(0.05, 19), allowed_count(0.0, 5)] == [
        3,
        29,
        0,
        0,
    ]


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_area_equals_a_fine_riemann_sum(limit):
    x, y = np.array([0.0, 0.0, 0.1, 0.4, 0.4, 1.0]), np.array([0.0, 0.2, 0.2, 0.5, 0.9, 1.0])
    fine = (np.arange(200_000) + 0.5) / 200_000 * limit
    assert area([(x, y)], limit) == pytest.approx(np.interp(fine, x, y).mean(), abs=1e-5)
    assert area([(x[:3], y[:3]), (x[2:], y[2:])], limit) == pytest.approx(area([(x, y)], limit))


def test_shares_of_regions_sum_to_one_each():
    truth, _ = draw(3)
    four = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
    eight, sides = region_weights(truth), region_weights(truth, four)
    assert eight.sum() == pytest.approx(np.rint(eight.sum()))
    assert sides.sum() >= eight.sum()  # corners join


class TestRegion:
    """Pixels that do not count are as if they were not there."""

    def test_counts_are_those_of_the_pixels_that_count(self):
        truth, score = draw(3, levels=2)
        region = np.random.default_rng(3).random(truth.shape) < 0.6
        curve, flat = Curve(truth, score, region=region), Curve(truth[region], score[region])
        assert (curve.positives, curve.negatives) == (flat.positives, flat.negatives)
        assert curve.thresholds.tolist() == flat.thresholds.tolist()
        for mine, theirs in zip(curve.counts, flat.counts, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert curve.range == (score[region].min(), score[region].max())

    def test_scores_outside_change_no_metric(self):
        from iadbe.metric import dialects_of, parse
        from iadbe.registry import load, names

        truth, score = draw(4)
        region = np.ones_like(truth)
        region[:, :3] = False
        other = np.where(region, score, 99).astype(np.float32)
        for name in names("metrics"):
            if "pixel" in load("metrics", name).of:
                for dialect in ("", *(f".{d}" for d in dialects_of(load("metrics", name), "pixel"))):
                    value = parse(f"pixel_{name}{dialect}")[1].value
                    held_out = np.array([0.5, 1.0])
                    curves = [Curve(truth, s, held_out, region=region) for s in (score, other)]
                    np.testing.assert_equal(value(curves[0]), value(curves[1]), err_msg=f"{name}{dialect}")

    def test_a_region_must_have_the_maps_shape(self):
        truth, score = draw(5)
        with pytest.raises(ValueError, match="region must be bool"):
            Curve(truth, score, region=np.ones(truth.shape[1:], bool))
