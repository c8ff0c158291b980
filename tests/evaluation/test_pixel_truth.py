"""Masks beside maps, in memory and streamed."""

import numpy as np
import pytest
from PIL import Image

from grey_images import EMPTY, SPOT, GreyImages, images
from iadbe.data.images import Images, View
from iadbe.dataset import Defect
from iadbe.evaluation.measure import DetectorOutput, measure
from iadbe.evaluation.pixel_truth import defect_regions, ground_truth
from iadbe.evaluation.spilled_maps import SpilledMaps
from iadbe.metric import MASK_RULES
from iadbe.types import TrainingImage


def test_a_mask_of_another_size_is_resized_to_the_view():
    large = np.zeros((128, 256), bool)
    large[:64, :128] = True
    masks, known, *_ = ground_truth(images(False, large))
    assert known.all()
    assert masks[1, :32, :32].all()
    assert masks[1].sum() == 32 * 32


def test_the_saturation_shrinks_with_the_image_and_unknown_ones_do_not_count():
    large = np.zeros((128, 128), bool)
    large[:32, :32] = True
    shown = images(False, None, large)
    shown.dataset.defects = lambda sample: (Defect(large, 0.5),)
    (part,) = defect_regions(shown, ground_truth(shown).known)
    assert part.image == 1  # among those with a mask
    assert (part.pixels.size, part.saturation) == (16 * 16, 128.0)


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


class TestStreamed:
    """What is read map by map is what is held in memory."""

    def test_notes_and_left_out_images_are_the_same(self):
        vanished = TestVanishedMasks().mask(TestVanishedMasks.LOST)
        shown = images(False, SPOT, None, EMPTY, vanished)
        shown.dataset.region = lambda sample: None if sample.id == "1" else np.ones((64, 64), bool)
        maps = np.random.default_rng(0).random((5, 64, 64), np.float32)
        names = ["pixel_auroc", "pixel_aupro", "pixel_auroc.touched"]
        made = SpilledMaps(maps.shape)
        made.write(0, maps)
        scores = maps.max((1, 2))
        expected = measure(DetectorOutput(scores, maps), shown, names)
        assert measure(DetectorOutput(scores, made), shown, names) == (pytest.approx(expected[0]), expected[1])
        assert len(expected[1]) == 2

    @pytest.mark.parametrize("spilled", [(True, True), (True, False), (False, True)])
    def test_held_out_maps_may_be_spilled_too(self, spilled):
        shown, apart = images(False, SPOT), images(False, False)
        rng = np.random.default_rng(1)
        given = [rng.random((2, 64, 64), np.float32), rng.random((2, 64, 64), np.float32)]
        given[0][1] += SPOT
        expected = measure(
            DetectorOutput(np.zeros(2), given[0], np.zeros(2), given[1]), shown, ["pixel_segf1"], None, apart
        )
        for place, is_spilled in enumerate(spilled):
            if is_spilled:
                made = SpilledMaps(given[place].shape)
                made.write(0, given[place])
                given[place] = made
        found = DetectorOutput(np.zeros(2), given[0], np.zeros(2), given[1])
        assert measure(found, shown, ["pixel_segf1"], None, apart)[0] == pytest.approx(expected[0])
        found.close()
        with pytest.raises(ValueError, match="closed"):
            next(iter(made))
