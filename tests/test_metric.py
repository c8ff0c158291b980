import subprocess
import sys

import numpy as np
import pytest

from iadbe import registry
from iadbe.errors import BadConfig, UnknownName
from iadbe.metric import DEFAULT, Metric, parse, percent, share


class Share(Metric):
    """The share of defects, to stand for a metric from outside."""

    def value(self, curve):
        return curve.positives / curve.truth.size


class NotAMetric:
    pass


@pytest.mark.parametrize("name", DEFAULT)
def test_a_row_reads_back_as_its_own_name(name):
    level, metric = parse(name)
    assert f"{level}_{metric.label}" == name
    assert level in metric.of


def test_a_parameter_reaches_the_metric():
    assert parse("pixel_aupro@5%")[1].limit == 0.05
    assert parse("pixel_aupro")[1].limit == 0.3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("image_aurok", "Did you mean image_auroc"),
        ("pixel_auprp", "Did you mean pixel_aupro"),
        ("auroc", "Did you mean pixel_auroc, image_auroc"),
        ("ap", "Did you mean image_ap"),
        ("picture_auroc", "Did you mean"),
        ("image_", "no row is named 'image_'"),
        ("", "no row is named ''"),
        ("image_aupro", "aupro is a pixel metric. Did you mean pixel_aupro"),
    ],
)
def test_a_wrong_name_says_what_was_meant(name, says):
    with pytest.raises(UnknownName, match=says):
        parse(name)


def test_a_parameter_that_nobody_takes_is_refused():
    with pytest.raises(BadConfig, match="leave out '@5%'"):
        parse("image_auroc@5%")


@pytest.mark.parametrize(
    ("name", "dialect", "mask", "limit"),
    [
        ("pixel_aupro.rd4ad", "rd4ad", "nearest", 0.3),
        ("pixel_aupro.rd4ad@5%", "rd4ad", "nearest", 0.05),
        ("pixel_aupro.touched@0.1%", "exact", "touched", 0.001),
        ("pixel_aupro.cflow.whole@5%", "cflow", "whole", 0.05),
        ("pixel_aupro.nearest", "exact", "nearest", 0.3),
    ],
)
def test_names_after_a_dot_choose_dialect_and_mask_rule(name, dialect, mask, limit):
    _, metric = parse(name)
    assert (metric.dialect, metric.mask, metric.limit) == (dialect, mask, limit)
    assert f"pixel_{metric.label}" == name.removesuffix(".nearest")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pixel_aupro.rd4d", "aupro has no dialect 'rd4d'. Did you mean rd4ad"),
        ("pixel_ap.rd4ad", "ap has no dialect 'rd4ad'"),
        ("image_auroc.touched", "auroc has no dialect 'touched'"),
        ("image_auroc.orthoad", "auroc has no dialect 'orthoad'"),  # it needs maps
        ("pixel_aupro.rd4ad.cflow", "one dialect and one mask rule"),
        ("pixel_aupimo.rd4ad", "Mask rules: nearest, over_half, touched, whole"),
        ("image_overkill.touched", "Its dialects: held_out"),
    ],
)
def test_a_wrong_word_says_what_there_is(name, says):
    with pytest.raises(UnknownName, match=says):
        parse(name)


def test_a_share_is_read_and_written():
    assert [share(t) for t in ("5%", "0.1%", "100%")] == [0.05, 0.001, 1.0]
    assert all(np.isnan(share(t)) for t in ("5", "", "%", "x%", "0.05"))
    assert [percent(v) for v in (0.05, 0.001, 1 / 3)] == ["5%", "0.1%", "33.3333333333%"]


def test_an_external_class_must_be_a_metric(monkeypatch):
    monkeypatch.setitem(sys.modules, "outside_metrics", sys.modules[__name__])
    registry.trust("outside_metrics:Share", "outside_metrics:NotAMetric")
    level, metric = parse("image_outside_metrics:Share")
    assert level == "image"
    assert metric(np.array([True, False]), np.array([0.0, 1.0])) == 0.5
    assert parse("pixel_outside_metrics:Share.touched")[1].mask == "touched"
    with pytest.raises(BadConfig, match="not a metric"):
        parse("image_outside_metrics:NotAMetric")


def test_metrics_do_not_import_torch():
    code = "import sys, iadbe.metric as m; [m.parse(n) for n in m.DEFAULT]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
