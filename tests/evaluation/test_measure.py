from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from iadbe.curves.curve import Curve, DefectRegion
from iadbe.data.images import Images, View
from iadbe.dataset import Dataset, Defect, Index
from iadbe.evaluation.measure import (
    DetectorOutput,
    defect_regions,
    ground_truth,
    held_out_samples,
    measure,
    needs_held_out,
)
from iadbe.metric import MASK_RULES, parse
from iadbe.types import Sample, Step, TrainingImage


class GreyImages(Dataset):
    """Images of one grey, with masks as given: an array, None for a missing one."""

    def __init__(self, masks):
        self.masks = masks

    categories = ("c",)

    def samples(self):
        return tuple(
            Sample(str(i), "c", "test", "good" if m is False else "spot", f"{i}.png", None if m is None else "m.png")
            for i, m in enumerate(self.masks)
        )

    def image(self, sample):
        return np.full((64, 64, 3), 90, np.uint8)

    def mask(self, sample):
        return self.masks[int(sample.id)]


SPOT = np.zeros((64, 64), bool)
SPOT[10:20, 30:40] = True
EMPTY = np.zeros((64, 64), bool)


def images(*masks):
    made = GreyImages(masks)
    return Images(made, [TrainingImage(s) for s in made.samples()], View(64))


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


def test_a_mask_of_another_size_is_resized_to_the_view():
    large = np.zeros((128, 256), bool)
    large[:64, :128] = True
    masks, known, *_ = ground_truth(images(False, large))
    assert known.all()
    assert masks[1, :32, :32].all()
    assert masks[1].sum() == 32 * 32


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


class TestMaskRules:
    """A mask of 96 x 96 becomes one of 64 x 64; the reference resizes black and white with Pillow itself."""

    @pytest.fixture
    def mask(self):
        rng = np.random.default_rng(1)
        mask = np.zeros((96, 96), bool)
        mask[11:40, 22:57] = True
        mask[60:90, 60:90] = rng.random((30, 30)) < 0.4
        return mask

    @pytest.mark.parametrize(
        ("rule", "is_defect"),
        [("over_half", lambda v: v >= 0.5), ("touched", lambda v: v > 0), ("whole", lambda v: v.astype(int) == 1)],
    )
    def test_bilinear_rules_equal_pillow(self, mask, rule, is_defect):
        grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((64, 64), Image.Resampling.BILINEAR)
        expected = is_defect(np.asarray(grey, np.float32) / 255)
        found, *_ = ground_truth(images(False, mask), rule)
        np.testing.assert_array_equal(found[1], expected)
        assert not found[0].any()

    def test_each_is_larger_than_the_next(self, mask):
        shown = images(mask)
        whole, half, touched = (ground_truth(shown, rule)[0] for rule in ("whole", "over_half", "touched"))
        assert not (whole & ~half).any()
        assert not (half & ~touched).any()
        assert whole.sum() < half.sum() < touched.sum()
        nearest = ground_truth(shown)[0]
        expected = Image.fromarray(mask.astype(np.uint8) * 255).resize((64, 64), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(nearest[0], np.asarray(expected) > 127)

    def test_rows_under_several_rules_stand_side_by_side(self, mask):
        shown = images(False, mask)
        half = ground_truth(shown, "over_half")[0].astype(np.float32)
        names = ["pixel_ap", "pixel_ap.over_half", "pixel_auroc.touched", "pixel_aupro.rd4ad.whole"]
        rows, notes = measure(DetectorOutput(np.array([0, 1], np.float32), half), shown, names)
        assert list(rows) == names
        assert rows["pixel_ap.over_half"] == 1.0
        assert max(rows["pixel_ap"], rows["pixel_auroc.touched"]) < 1.0
        (note,) = notes
        assert note.startswith("3 of 23 defect regions have no pixel in the view")


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

    def test_the_saturation_shrinks_with_the_image_and_unknown_ones_do_not_count(self):
        large = np.zeros((128, 128), bool)
        large[:32, :32] = True
        shown = images(False, None, large)
        shown.dataset.defects = lambda sample: (Defect(large, 0.5),)
        (part,) = defect_regions(shown, ground_truth(shown))
        assert part.image == 1  # among those with a mask
        assert (part.pixels.size, part.saturation) == (16 * 16, 128.0)


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


class TestVanishedMasks:
    """Masks of 256 x 256 in a view of 64 x 64: nearest neighbour samples every fourth row, from the third on."""

    def mask(self, *places):
        mask = np.zeros((256, 256), bool)
        for row, column in places:
            mask[row, column] = True
        return mask

    LOST, KEPT = (4, 40), (6, 42)  # row % 4 and column % 4 decide

    def test_a_mask_without_a_pixel_in_the_view_is_left_out_with_a_note(self):
        shown = images(False, self.mask(self.KEPT), self.mask(self.LOST))
        truth = ground_truth(shown)
        assert truth.known.tolist() == [True, True, False]
        assert len(truth.masks) == 2
        assert truth.notes == (
            "the masks of 1 of 2 defective images have no defect pixel in the view of 64 x 64 (mask rule nearest); "
            "pixel metrics leave them out; rows with the mask rule touched, as pixel_auroc.touched, count every pixel "
            "that a defect touches.",
        )

    def test_the_rule_touched_keeps_them(self):
        truth = ground_truth(images(False, self.mask(self.KEPT), self.mask(self.LOST)), "touched")
        assert truth.known.all()
        assert truth.notes == ()

    def test_a_mask_that_is_cropped_away_is_left_out_under_every_rule(self):
        corner = np.zeros((96, 96), bool)
        corner[:9, :9] = True
        made = GreyImages([False, corner])
        shown = Images(made, [TrainingImage(s) for s in made.samples()], View(96, 64))
        for rule in MASK_RULES:
            truth = ground_truth(shown, rule)
            assert truth.known.tolist() == [True, False]
            assert "1 of 1 defective images" in truth.notes[0]

    def test_where_all_vanish_there_are_no_pixel_rows_and_the_note_says_why(self):
        maps = np.zeros((2, 64, 64), np.float32)
        output = DetectorOutput(np.array([0, 1], np.float32), maps)
        rows, notes = measure(output, images(False, self.mask(self.LOST)), ["image_auroc", "pixel_auroc"])
        assert list(rows) == ["image_auroc"]
        assert "1 of 1 defective images have no defect pixel in the view" in notes[0]
        assert "there are no masks" not in " ".join(notes)

    def test_a_lost_region_beside_others_is_noted(self):
        truth = ground_truth(images(False, self.mask(self.KEPT, self.LOST, (100, 100))))
        assert truth.known.all()
        assert truth.notes[0].startswith("2 of 3 defect regions have no pixel in the view of 64 x 64;")


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
