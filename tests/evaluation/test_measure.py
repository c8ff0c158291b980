from dataclasses import replace

import numpy as np
import pytest

from grey_images import EMPTY, SPOT, GreyImages, images
from iadbe.curves.curve import Curve, DefectRegion
from iadbe.data.images import Images, View
from iadbe.dataset import Defect, Index
from iadbe.evaluation.measure import DetectorOutput, held_out_samples, measure, needs_held_out
from iadbe.metric import parse
from iadbe.types import Sample, Step, TrainingImage


def test_scores_reach_the_metrics_raw():
    """Separable scores far from 0 and 1: clamping, a sigmoid or half-precision would make ties of them."""
    shown = images(False, False, SPOT, SPOT)
    for scale in (1e-6, 1.0, 1e6):
        score = np.array([20, 25, 30, 40], np.float32) * np.float32(scale)
        assert measure(DetectorOutput(score), shown, ["image_auroc"])[0] == {"image_auroc": 1.0}


def test_perfect_maps_give_one():
    shown = images(False, SPOT)
    maps = np.stack([EMPTY, SPOT]).astype(np.float32)
    names = ["pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"]
    rows, notes = measure(DetectorOutput(np.array([0, 1], np.float32), maps), shown, names)
    assert rows == pytest.approx(dict.fromkeys(names, 1.0))
    assert notes == []


@pytest.mark.parametrize("lacking", [None, EMPTY], ids=["missing", "empty"])
def test_defects_without_a_mask_are_left_out_with_a_note(lacking):
    shown = images(False, SPOT, lacking)
    maps = np.stack([EMPTY, SPOT, SPOT]).astype(np.float32)
    maps[2] = 9  # would ruin the metrics if it counted as clean
    rows, notes = measure(DetectorOutput(np.array([0, 1, 2], np.float32), maps), shown, ["image_auroc", "pixel_auroc"])
    assert rows == {"image_auroc": 1.0, "pixel_auroc": 1.0}
    assert notes == ["1 of 2 defective images have no mask; pixel metrics leave them out."]


def test_without_any_mask_there_are_no_pixel_rows():
    rows, notes = measure(
        DetectorOutput(np.array([0, 1], np.float32), np.zeros((2, 64, 64), np.float32)),
        images(False, None),
        ["image_auroc", "pixel_auroc"],
    )
    assert list(rows) == ["image_auroc"]
    assert "no masks" in notes[0]


def test_without_maps_there_are_no_pixel_rows():
    rows, notes = measure(DetectorOutput(np.array([0, 1], np.float32)), images(False, SPOT), ["image_ap", "pixel_ap"])
    assert list(rows) == ["image_ap"]
    assert "does not localise" in notes[0]


def test_no_defects_in_the_test_is_nan_not_zero():
    rows, _ = measure(DetectorOutput(np.array([0, 1], np.float32)), images(False, False), ["image_auroc"])
    assert np.isnan(rows["image_auroc"])


class TestHeldOut:
    def test_thresholds_come_from_held_out_images(self):
        shown = images(False, SPOT)
        maps = np.stack([EMPTY, SPOT]).astype(np.float32)
        held_out = np.zeros((3, 64, 64), np.float32)
        evidence = DetectorOutput(np.array([0.2, 1], np.float32), maps, np.array([0.1, 0.3, 0.5], np.float32), held_out)
        names = ["image_overkill.held_out@40%", "image_overkill.held_out@70%", "image_escape.held_out", "pixel_segf1"]
        rows, notes = measure(evidence, shown, names)
        assert rows == dict(zip(names, (0.0, 1.0, 0.0, 1.0), strict=True))
        assert notes == []

    def test_without_held_out_images_the_value_is_nan_with_a_note(self):
        maps = np.stack([EMPTY, SPOT]).astype(np.float32)
        names = ["image_auroc", "image_escape.held_out@1%", "pixel_segf1"]
        rows, notes = measure(DetectorOutput(np.array([0, 1], np.float32), maps), images(False, SPOT), names)
        assert rows["image_auroc"] == 1.0
        assert np.isnan(rows["image_escape.held_out@1%"])
        assert np.isnan(rows["pixel_segf1"])
        assert notes == [
            "no good images are held out to choose a threshold on, "
            "so there is no image_escape.held_out@1%, pixel_segf1."
        ]


class TestSaturation:
    def test_a_datasets_saturation_is_used(self):
        shown = images(False, SPOT)
        shown.dataset.defects = lambda sample: (Defect(SPOT, 0.25),)
        maps = np.zeros((2, 64, 64), np.float32)
        maps[1, 10:15, 30:35] = 1.0  # a quarter of the spot
        rows, _ = measure(DetectorOutput(np.array([0, 1], np.float32), maps), shown, ["pixel_spro", "pixel_aupro@5%"])
        assert rows["pixel_spro"] == 1.0
        assert rows["pixel_aupro@5%"] == pytest.approx(0.25, abs=0.02)


class TestHeldOutSamples:
    def sample(self, name, split, defect="good", category="a"):
        return Sample(name, category, split, defect, f"{name}.png")

    def test_the_datasets_validation_split_of_the_tested_categories(self):
        tested = (self.sample("t", "test"),)
        other, bad = self.sample("w", "val", category="b"), self.sample("x", "val", "dent")
        every = [self.sample("v", "val"), other, bad, *tested]
        step = Step(((TrainingImage(self.sample("n", "train")),),), {"a": tested})
        assert [s.id for s in held_out_samples(step, tested, Index(every))] == ["v"]

    def test_what_the_setting_holds_out_comes_first_and_nothing_learnt_or_tested_counts(self):
        tested, learnt = (self.sample("t", "test"),), self.sample("n", "train")
        apart = (self.sample("h", "train"), learnt, *tested)
        step = Step(((TrainingImage(learnt),),), {"a": tested}, held_out=apart)
        assert [s.id for s in held_out_samples(step, tested, Index([self.sample("v", "val"), *tested]))] == ["h"]

    def test_only_where_a_row_needs_it(self):
        assert not needs_held_out(["image_auroc", "image_escape", "pixel_aupro.rd4ad"])
        assert needs_held_out(["image_auroc", "image_escape.held_out@1%"])
        assert needs_held_out(["pixel_segf1"])


class TestKinds:
    """Means over defect types, each against the good images, as MVTec LOCO AD's evaluation has them."""

    class Loco(GreyImages):
        def samples(self):
            kinds = ("logical", "structural", "structural", "structural")
            named = iter(kinds)
            return tuple(s if s.defect == "good" else replace(s, defect=next(named)) for s in GreyImages.samples(self))

    def images(self, *masks):
        made = self.Loco(masks)
        return Images(made, [TrainingImage(s) for s in made.samples()], View(64))

    def test_image_rows_are_means_of_each_kind_against_good(self):
        shown = self.images(False, False, SPOT, SPOT, SPOT, SPOT)
        score = np.array([1, 3, 2, 4, 5, 6], np.float32)
        rows, notes = measure(DetectorOutput(score), shown, ["image_auroc", "image_auroc.kinds"])
        assert rows["image_auroc"] == pytest.approx(7 / 8)  # all eight pairs
        assert rows["image_auroc.kinds"] == pytest.approx((1 / 2 + 1) / 2)
        assert notes == ["image_auroc.kinds: logical 0.500, structural 1.000."]

    def test_pixel_rows_take_good_images_and_one_kind(self):
        other = np.zeros((64, 64), bool)
        other[40:50, 5:15] = True
        shown = self.images(False, SPOT, other, None)
        shown.dataset.defects = lambda sample: (Defect(shown.dataset.mask(sample), 0.5),)
        rng = np.random.default_rng(0)
        maps = rng.normal(size=(4, 64, 64)).astype(np.float32)
        maps[1][SPOT] += 2
        names = ["pixel_auroc.kinds", "pixel_spro.kinds@30%", "pixel_aupro.kinds"]
        rows, notes = measure(DetectorOutput(maps.max((1, 2)), maps), shown, names)
        for name in names:
            _, metric = parse(name)
            each = []
            for place, mask in ((1, SPOT), (2, other)):
                truth = np.stack([np.zeros((64, 64), bool), mask])
                region = [DefectRegion(1, np.flatnonzero(mask), 50.0)]
                each.append(metric.value(Curve(truth, maps[[0, place]], parts=region)))
            assert rows[name] == pytest.approx(np.mean(each))
        assert notes[0] == "1 of 3 defective images have no mask; pixel metrics leave them out."

    def test_a_kind_without_a_value_makes_the_mean_nan(self):
        shown = self.images(False, SPOT, None)
        maps = np.stack([EMPTY, SPOT, SPOT]).astype(np.float32)
        rows, _ = measure(DetectorOutput(maps.max((1, 2)), maps), shown, ["pixel_auroc.kinds", "pixel_auroc"])
        assert rows["pixel_auroc"] == 1.0
        assert rows["pixel_auroc.kinds"] == 1.0  # no structural image is known, so there is one kind

    def test_with_one_kind_it_is_the_plain_value(self):
        shown = images(False, False, SPOT, SPOT)
        score = np.array([1, 3, 2, 4], np.float32)
        rows, _ = measure(DetectorOutput(score), shown, ["image_ap", "image_ap.kinds"])
        assert rows["image_ap"] == rows["image_ap.kinds"]
