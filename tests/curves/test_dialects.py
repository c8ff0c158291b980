"""Each dialect against what its users' code does, step by step, on maps small enough for that."""

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from iadbe.curves import dialects
from iadbe.curves.curve import Curve
from iadbe.metric import parse
from reference_curves import Overlap, draw, regions_of

KINDS = [(None, False), (None, True), (3, False)]  # plain scores, a heavy tail, many ties
random_maps = pytest.mark.parametrize(
    ("seed", "levels", "heavy"), [(seed, *kind) for seed in range(3) for kind in KINDS]
)
LIMITS = (0.05, 0.3)


def agrees(name, slow, truth, score, limits=LIMITS):
    """Compare a dialect of AUPRO with its literal version; a crash of the latter is nan."""
    for limit in limits:
        metric = parse(f"pixel_aupro.{name}@{limit:.0%}")[1]
        with np.errstate(all="ignore"):
            try:
                expected = slow(truth, score, limit)
            except ValueError:
                expected = np.nan
        assert metric(truth, score) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def linear(truth, score, limit, steps=200, *, from_least=False, overlap=None):
    pros, fprs, overlap = [], [], overlap or Overlap(truth)
    low, high = score.min(), score.max()
    for k in range(steps):
        cut = score > low + (high - low) / steps * k
        pros.append(overlap(cut))
        fprs.append(np.logical_and(~truth, cut).sum() / (~truth).sum())
    pros, fprs = np.array(pros), np.array(fprs)
    kept = fprs < limit
    x = fprs[kept]
    return auc((x - x.min()) / (x.max() - x.min()) if from_least else x / x.max(), pros[kept])


@random_maps
def test_steps_of_equal_distance(seed, levels, heavy):
    truth, score = draw(seed, levels, heavy=heavy)
    agrees("dinomaly", linear, truth, score)
    agrees("ader", lambda *a: linear(*a, from_least=True), truth, score)
    agrees("msflow", lambda *a: linear(*a, steps=800, from_least=True), truth, score, (0.3,))


@random_maps
def test_dilated_for_the_overlap_alone(seed, levels, heavy):
    truth, score = draw(seed, levels, heavy=heavy)
    plain = Overlap(truth)

    def dilated(cut):
        wide = np.zeros_like(cut)
        for n, y, x in zip(*np.nonzero(cut), strict=True):
            wide[n, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
        return plain(wide)

    agrees("simplenet", lambda *a: linear(*a, overlap=dilated), truth, score, (0.05, 0.3))


@random_maps
def test_each_defective_image_alone(seed, levels, heavy):
    def alone(truth, score, limit):
        values = []
        for t, s in zip(truth, score, strict=True):
            if t.any():
                try:
                    values.append(linear(t[None], s[None], limit))
                except ValueError:
                    values.append(np.nan)
        return np.nanmean(values) if np.isfinite(values).any() else np.nan

    agrees("rd4ad", alone, *draw(seed, levels, heavy=heavy))


@random_maps
def test_thresholds_from_the_maximum_with_holes_filled(seed, levels, heavy):
    def cflow(truth, score, limit):
        pros, fprs, regions = [], [], []
        for n, t in enumerate(truth):
            for where in regions_of(t):
                region = np.zeros_like(t)
                region[where] = True
                regions.append((n, binary_fill_holes(region, np.ones((3, 3))), region.sum()))
        for step in range(1000):
            cut = score > score.max() - step * (score.max() - score.min()) / 1000
            pros.append(np.mean([(cut[n] & filled).sum() / size for n, filled, size in regions]))
            fprs.append((cut & ~truth).sum() / (~truth).sum())
        pros, fprs = np.array(pros), np.array(fprs)
        x = fprs[fprs <= limit]
        return auc((x - x.min()) / (x.max() - x.min()), pros[fprs <= limit])

    agrees("cflow", cflow, *draw(seed, levels, heavy=heavy), (0.3,))


def test_filled_holes_can_give_an_overlap_above_one():
    truth = np.zeros((1, 5, 9), dtype=bool)
    truth[0, :5, :5] = True
    truth[0, 1:4, 1:4] = False
    ring_and_hole = np.zeros_like(truth, dtype=float)
    ring_and_hole[0, :5, :5] = 2.0
    ring_and_hole[0, 0, 8] = 1.0
    # Overlap 25 / 16 from a rate of 9 / 29 on, the holes' own; up to 10 / 29, the end of the scaled axis.
    assert dialects.cflow(Curve(truth, ring_and_hole), 0.5) == pytest.approx(25 / 16 * 0.55)


@random_maps
def test_equal_ranks_of_clean_pixels(seed, levels, heavy):
    def mvtec_3d(truth, score, limit):
        clean = np.sort(score[~truth])
        points, overlap = [(1.0, 1.0)], Overlap(truth)
        for place in np.linspace(0, len(clean) - 1, 100, dtype=int):
            points.append((1.0 - (place + 1) / len(clean), overlap(score > clean[place])))
        x, y = np.array(points[::-1]).T
        inside = x <= limit
        total = np.sum(np.diff(x[inside]) * (y[inside][1:] + y[inside][:-1])) / 2
        if limit not in x:
            at = np.searchsorted(x, limit)
            height = y[at - 1] + (y[at] - y[at - 1]) * (limit - x[at - 1]) / (x[at] - x[at - 1])
            total += (height + y[at - 1]) * (limit - x[at - 1]) / 2
        return total / limit

    truth, score = draw(seed, levels, heavy=heavy)
    agrees("mvtec_3d", mvtec_3d, truth, score)
    half = (score - score.min()) / (score.max() - score.min()) >= 0.5
    agrees("open_iad", lambda t, s, limit: mvtec_3d(t, half.astype(float), limit), truth, score)


@random_maps
def test_one_curve_per_region_resampled_to_one_length(seed, levels, heavy):
    def anomalib(truth, score, limit):
        every, _, _ = roc_curve(truth.ravel(), score.ravel(), drop_intermediate=False)
        length = np.count_nonzero(every <= limit)
        total_x, total_y, count = np.zeros(length), np.zeros(length), 0
        for n, t in enumerate(truth):
            for where in regions_of(t):
                region = np.zeros_like(truth)
                region[n][where] = True
                kept = ~truth | region
                x, y, _ = roc_curve(region[kept], score[kept], drop_intermediate=False)
                if x[x <= limit].max() == 0:
                    return np.nan  # more clean pixels share the top score than the limit allows
                places = np.flatnonzero(x <= limit)
                new = np.arange(length, dtype=float)
                if not np.allclose(x[places].max(), limit):
                    beyond = np.searchsorted(x, limit)
                    slope = 1 - (x[beyond] - limit) / (x[beyond] - x[beyond - 1])
                    places = np.append(places, beyond)
                    scaled = places / places.max() * (length - 1)
                    new[-1] = scaled[-2] + (scaled[-1] - scaled[-2]) * slope
                else:
                    scaled = places / places.max() * (length - 1)
                total_x += np.interp(new, scaled, x[places])
                total_y += np.interp(new, scaled, y[places])
                count += 1
        x, y = total_x / count, total_y / count
        order = np.argsort(x, kind="stable")
        return auc(x[order], y[order]) / x[-1]

    agrees("anomalib", anomalib, *draw(seed, levels, heavy=heavy))


def bins_of(truth, score, bins):
    """Return (edges, false, found, overlap) as ADEval accumulates them, from the lowest edge up."""
    edges = np.linspace(0, 1, bins + 1) * (score.max() - score.min()) + score.min()
    found = np.array([(score[truth] >= e).sum() for e in edges])
    false, overlap = np.array([(score[~truth] >= e).sum() for e in edges]), Overlap(truth)
    return false, found, np.array([overlap(score >= e) for e in edges])


@random_maps
@pytest.mark.parametrize(("name", "bins"), [("adeval", 1000), ("adeval_50", 50)])
def test_bins_of_equal_width(seed, levels, heavy, name, bins):
    truth, score = draw(seed, levels, heavy=heavy)
    false, found, overlap = bins_of(truth, score, bins)
    rate, recall = false / (~truth).sum(), found / truth.sum()
    assert parse(f"pixel_auroc.{name}")[1](truth, score) == pytest.approx(auc(rate, recall), abs=1e-9)
    precision = np.array([f / (f + n) if f + n else 1.0 for f, n in zip(found, false, strict=True)])
    assert parse(f"pixel_ap.{name}")[1](truth, score) == pytest.approx(auc(recall, precision), abs=1e-9)

    def aupro(truth, score, limit):
        inside, x, y = rate <= limit, rate[::-1], overlap[::-1]
        low = np.sum(np.diff(x[inside[::-1]]) * (y[inside[::-1]][1:] + y[inside[::-1]][:-1])) / 2
        last, first = inside.sum() - 1, inside.sum()
        step, t = x[first] - x[last], (limit - x[last]) / (x[first] - x[last])
        rectangle, triangle = step * y[last], step * (y[first] - y[last]) / 2
        return (low + rectangle * t + triangle * t * t) / limit

    agrees(name, aupro, truth, score)


def test_bins_of_equal_width_fail_on_heavy_tails():
    rng = np.random.default_rng(0)
    truth = rng.random((4, 40, 40)) < 0.1
    score = np.exp(4 * (rng.normal(size=truth.shape) + truth))
    exact, binned = parse("pixel_auroc")[1](truth, score), parse("pixel_auroc.adeval_50")[1](truth, score)
    assert exact > 0.74
    assert binned < 0.6


@random_maps
def test_21_thresholds_on_scaled_maps(seed, levels, heavy):
    truth, score = draw(seed, levels, heavy=heavy)
    scaled = (score - score.min()) / (score.max() - score.min())
    f1, iou = [], []
    for t in np.arange(0.0, 1.0 + 1e-3, 0.05):
        cut = scaled > t
        both = np.logical_and(truth, cut).sum()
        precision, recall = both / (cut.sum() + 1e-8), both / (truth.sum() + 1e-8)
        f1.append(2 * precision * recall / (precision + recall + 1e-8))
        iou.append(both / (np.logical_or(truth, cut).sum() + 1e-8))
    assert len(f1) == 21
    assert parse("pixel_f1max.ader")[1](truth, score) == pytest.approx(max(f1), abs=1e-9)
    assert parse("pixel_iou_max.ader")[1](truth, score) == pytest.approx(max(iou), abs=1e-9)


@random_maps
def test_means_of_seven_thresholds_on_scaled_maps(seed, levels, heavy):
    truth, score = draw(seed, levels, heavy=heavy)
    scaled = (score - score.min()) / (score.max() - score.min())
    f1, accuracy, iou = [], [], []
    for t in np.arange(0.2, 0.8 + 1e-3, 0.1):
        cut = scaled > t
        both = np.logical_and(truth, cut).sum()
        precision, recall = both / (cut.sum() + 1e-8), both / (truth.sum() + 1e-8)
        f1.append(2 * precision * recall / (precision + recall + 1e-8))
        accuracy.append(recall)
        iou.append(both / (np.logical_or(truth, cut).sum() + 1e-8))
    assert len(f1) == 7
    for name, values in (("mf1", f1), ("macc", accuracy), ("miou", iou)):
        assert parse(f"pixel_{name}.ader")[1](truth, score) == pytest.approx(np.mean(values), abs=1e-9)


def orthoad(truth, score, limit, *, by_region):
    worst = np.argmax(score.reshape(len(score), -1).max(axis=1))
    ranked, count = np.sort(score[worst].ravel()), 1000
    regions = [regions_of(t) for t in truth]
    points = {}
    for i in range(count, 0, -1):
        cut = score > ranked[max(1, int(np.floor(ranked.size * i / count))) - 1]
        fpr = np.mean([(c & ~t).sum() / (~t).sum() for c, t in zip(cut, truth, strict=True)])
        if by_region:
            points[fpr] = np.mean(
                [np.mean([c[w].mean() for w in ws]) for c, ws in zip(cut, regions, strict=True) if ws]
            )
        else:
            points[fpr] = np.mean([c[t].mean() for c, t in zip(cut, truth, strict=True) if t.any()])
        if fpr > limit:
            break
    x, y = np.array(sorted(points.items())).T
    total = x[0] * y[0] / 2
    for i in range(1, len(x)):
        if i < len(x) - 1:
            total += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2
        else:
            total += (limit - x[i - 1]) * ((y[i] + y[i - 1]) / 2 + y[i - 1]) / 2
    return total / limit


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("levels", "heavy"), KINDS)
def test_means_over_images(seed, levels, heavy):
    truth, score = draw(seed, levels, heavy=heavy)
    agrees("orthoad", lambda *a: orthoad(*a, by_region=True), truth, score, (0.05, 0.3))
    auroc = parse("pixel_auroc.orthoad")[1](truth, score)
    assert auroc == pytest.approx(orthoad(truth, score, 1.0, by_region=False), abs=1e-9)


def paddle(truth, score, limit):
    worst = np.argmax(score.reshape(len(score), -1).max(axis=1))
    ranked = np.sort(score[worst].ravel())
    rates, overlaps = [], []
    for place in np.linspace(0, ranked.size - 1, 500).astype(int)[::-1]:
        cut = score > ranked[place]
        rates.append((cut & ~truth).sum() / (~truth).sum())
        shares = [np.mean([c[w].mean() for w in regions_of(t)]) for c, t in zip(cut, truth, strict=True) if t.any()]
        overlaps.append(np.mean(shares))
        if rates[-1] > limit:
            break
    x, y = np.array(rates), np.array(overlaps)
    x, y = (x - x.min()) / (x.max() - x.min()), (y - y.min()) / (y.max() - y.min())
    return np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("levels", "heavy"), KINDS)
def test_scaled_over_the_points_that_are_kept(seed, levels, heavy):
    agrees("orthoad_paddle", paddle, *draw(seed, levels, heavy=heavy), (0.05, 0.3))


@random_maps
def test_regions_that_share_a_side(seed, levels, heavy):
    def exact(truth, score, limit):
        points, overlap = [(0.0, 0.0)], Overlap(truth, corners=False)
        for t in np.unique(score)[::-1]:
            points.append(((score[~truth] >= t).mean(), overlap(score >= t)))
        x, y = np.array(points).T
        end = np.interp(limit, x, y)
        x, y = np.append(x[x <= limit], limit), np.append(y[x <= limit], end)
        return np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / limit

    agrees("four_connected", exact, *draw(seed, levels, heavy=heavy))


def test_binarised_at_half_and_flipped_below_half():
    truth, score = draw(1)
    half = ((score - score.min()) / (score.max() - score.min()) >= 0.5).ravel()
    assert parse("pixel_auroc.open_iad")[1](truth, score) == pytest.approx(roc_auc_score(truth.ravel(), half))
    assert parse("pixel_ap.open_iad")[1](truth, score) == pytest.approx(average_precision_score(truth.ravel(), half))
    exact = roc_auc_score(truth.ravel(), score.ravel())
    for turned in (score, -score):
        assert parse("pixel_auroc.uniad")[1](truth, turned) == pytest.approx(max(exact, 1 - exact))


def test_dialects_disagree():
    """On one set of maps, most dialects give another number than the exact one: that is why they have names."""
    rng = np.random.default_rng(3)
    truth = np.zeros((8, 48, 48), dtype=bool)
    for n in range(1, 8):
        y, x = rng.integers(0, 36, 2)
        truth[n, y : y + int(rng.integers(3, 12)), x : x + 6] = True
    score = np.exp(2 * rng.normal(size=truth.shape) + 2.4 * truth)
    _, exact = parse("pixel_aupro")
    values = {d: parse(f"pixel_aupro.{d}")[1](truth, score) for d in exact.dialects if d != "four_connected"}
    assert all(v == pytest.approx(v, abs=0) for v in values.values())
    assert sum(abs(v - exact(truth, score)) > 0.01 for v in values.values()) >= 8
    assert values["simplenet"] > exact(truth, score) + 0.1
