"""Streamed maps give the numbers of the same pixels held at once, whatever their sizes."""

import numpy as np
import pytest

from iadbe.curves.curve import Curve, DefectRegion, PixelMap
from iadbe.curves.streamed import StreamedCurve
from iadbe.metric import dialects_of, parse
from iadbe.registry import load, names

ROWS = [
    f"pixel_{name}{f'.{dialect}' if dialect else ''}"
    for name in names("metrics")
    if "pixel" in load("metrics", name).of
    for dialect in ("", *dialects_of(load("metrics", name), "pixel"))
]


def drawn(seed=0, shape=(5, 12, 11)):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.15
    truth[0] = False
    score = (np.round(rng.normal(size=shape) * 4) / 4 + truth).astype(np.float32)  # with ties
    return truth, score, rng.random(shape) < 0.8, rng.normal(size=(3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("with_region", [False, True])
def test_every_metric_is_the_same(name, with_region):
    truth, score, region, held_out = drawn()
    region = region if with_region else np.ones_like(region)
    held = Curve(truth, score, held_out, region=region if with_region else None)
    streamed = StreamedCurve(
        len(truth),
        lambda i: PixelMap(score[i], truth[i] & region[i], region[i] if with_region else None),
        lambda: iter(held_out),
    )
    value = parse(name)[1].value
    assert value(streamed) == pytest.approx(value(held), rel=1e-12, nan_ok=True)


def test_sizes_may_differ():
    """Two maps of different sizes, by hand: scores of defects 3 and 1, of clean pixels 2, 0, 0 and 1."""
    maps = [
        PixelMap(np.array([[3.0, 2.0, 0.0]], np.float32), np.array([[True, False, False]])),
        PixelMap(np.array([[1.0], [0.0], [1.0]], np.float32), np.array([[True], [False], [False]])),
    ]
    curve = StreamedCurve(2, maps.__getitem__)
    assert (curve.positives, curve.negatives, curve.range) == (2, 4, (0.0, 3.0))
    assert curve.thresholds.tolist() == [3, 1]
    assert (curve.tp.tolist(), curve.fp.tolist(), curve.fp_above.tolist()) == ([1, 2], [0, 2], [0, 1])
    assert parse("pixel_auroc")[1].value(curve) == (4 + 2.5) / 8
    assert curve.pro.tolist() == [0.5, 1]


def test_parts_and_their_saturation():
    truth, score, _, _ = drawn()
    parts = [DefectRegion(i, np.flatnonzero(mask), 0.5 * mask.sum()) for i, mask in enumerate(truth) if mask.any()]
    streamed = StreamedCurve(len(truth), lambda i: PixelMap(score[i], truth[i]), parts=parts)
    assert streamed.spro.tolist() == Curve(truth, score, parts=parts).spro.tolist()


def test_scores_must_be_finite():
    curve = StreamedCurve(1, lambda i: PixelMap(np.array([[np.nan, 1]]), np.array([[True, False]])))
    with pytest.raises(ValueError, match="finite"):
        parse("pixel_auroc")[1].value(curve)


@pytest.mark.parametrize("dialect", ["mvtec_3d", "anomalib"])
def test_no_dialect_holds_all_clean_scores(dialect, monkeypatch):
    def refused(curve):
        raise AssertionError("all clean scores at once")

    monkeypatch.setattr(StreamedCurve, "clean_scores", property(refused))
    truth, score, _, _ = drawn()
    streamed = StreamedCurve(len(truth), lambda i: PixelMap(score[i], truth[i]))
    for limit in ("", "@5%", "@100%"):
        value = parse(f"pixel_aupro.{dialect}{limit}")[1].value
        assert value(streamed) == pytest.approx(value(Curve(truth, score)), rel=1e-12, nan_ok=True)
