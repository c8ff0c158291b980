"""Metrics at the images' own sizes: small cases by hand, and memory."""

import numpy as np
import pytest

from iadbe.data.images import Images, View
from iadbe.dataset import Dataset, Defect
from iadbe.evaluation.measure import DetectorOutput, measure
from iadbe.evaluation.native import NativeTruth, PackedMask
from iadbe.metrics.auroc import AUROC
from iadbe.types import Sample, TrainingImage


class Sized(Dataset):
    """Images of their masks' sizes; a mask without a defect is a good image."""

    categories = ("c",)

    def __init__(self, masks, regions=None):
        self.masks, self.counts = masks, regions or [None] * len(masks)

    def samples(self):
        kinds = ["spot" if mask.any() else "good" for mask in self.masks]
        return tuple(Sample(str(i), "c", "test", kind, f"{i}.png", "m.png") for i, kind in enumerate(kinds))

    def image(self, sample):
        return np.zeros((*self.masks[int(sample.id)].shape, 3), np.uint8)

    def mask(self, sample):
        return self.masks[int(sample.id)]

    def region(self, sample):
        return self.counts[int(sample.id)]

    def defects(self, sample):
        return (Defect(self.mask(sample), 0.5),) if sample.is_anomaly else ()


def images(masks, view, regions=None):
    dataset = Sized(masks, regions)
    return Images(dataset, [TrainingImage(s) for s in dataset.samples()], view)


def spot(height, width, rows, columns):
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


MASKS = [np.zeros((16, 32), bool), spot(16, 32, slice(0, 8), slice(0, 8)), spot(64, 48, slice(40, 44), slice(3, 5))]


def output(maps):
    return DetectorOutput(np.zeros(len(maps), np.float32), np.asarray(maps, np.float32))


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_a_number_is_that_of_all_pixels_at_their_own_size(fit):
    view = View(16, fit=fit)
    maps = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
    shown = images(MASKS, view)
    whole = [view.to_native(map_, mask.shape) for map_, mask in zip(maps, MASKS, strict=True)]
    expected = AUROC()(np.concatenate([m.ravel() for m in MASKS]), np.concatenate([m.ravel() for m in whole]))
    rows, notes = measure(output(maps), shown, ["pixel_auroc", "pixel_auroc.touched", "pixel_spro"], native=True)
    assert rows["pixel_auroc"] == pytest.approx(expected, abs=1e-12)
    assert rows["pixel_auroc.touched"] == rows["pixel_auroc"]  # nothing is resized, so the rules are one
    assert 0 <= rows["pixel_spro"] < 1
    assert notes == []


def test_a_defect_that_vanishes_in_the_view_counts():
    thin = spot(64, 64, 33, 33)
    shown = images([np.zeros((64, 64), bool), thin], View(8))
    maps = np.zeros((2, 8, 8))
    maps[1, 4, 4] = 1
    assert measure(output(maps), shown, ["pixel_auroc"])[0] == {}
    assert measure(output(maps), shown, ["pixel_auroc"], native=True)[0]["pixel_auroc"] > 0.99


def test_padding_is_not_scored():
    wide, found = spot(8, 16, slice(0, 4), slice(0, 4)), np.zeros((1, 16, 16))
    found[0, 4:8, :4] = 1
    found[0, :4] = found[0, 12:] = 5  # in the padding
    for native in (False, True):
        shown = images([wide], View(16, fit="pad"))
        assert measure(output(found), shown, ["pixel_auroc", "pixel_aupro"], native=native)[0] == {
            "pixel_auroc": 1,
            "pixel_aupro": 1,
        }
    assert measure(output(found), images([wide], View(16)), ["pixel_auroc"])[0]["pixel_auroc"] < 0.9


@pytest.mark.parametrize("native", [False, True])
def test_pixels_outside_of_a_region_do_not_count(native):
    masks = [spot(8, 8, slice(0, 2), slice(0, 4)), spot(8, 8, 7, 7), np.zeros((8, 8), bool)]
    regions = [np.ones((8, 8), bool), np.ones((8, 8), bool), None]
    regions[0][:, 2:] = False  # half of the first defect
    regions[1][7] = False  # all of the second
    maps = np.zeros((3, 8, 8))
    maps[0, :2, :2] = 1
    maps[0, :, 2:] = maps[1, 7] = 2  # would be false positives
    rows, notes = measure(output(maps), images(masks, View(8), regions), ["pixel_auroc", "pixel_spro"], native=native)
    assert rows == {"pixel_auroc": 1, "pixel_spro": 1}
    assert notes == [
        "the defects of 1 of 2 defective images lie where pixels do not count; pixel metrics leave them out."
    ]


def test_held_out_maps_give_a_threshold_at_their_own_size():
    shown, apart = images(MASKS, View(16)), images([np.zeros((20, 20), bool)], View(16))
    maps = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
    maps[1, :8, :4] += 3
    found = DetectorOutput(np.zeros(3), maps, np.zeros(1), np.full((1, 16, 16), 2, np.float32))
    rows, _ = measure(found, shown, ["pixel_segf1"], held_out=apart, native=True)
    called = [View(16).to_native(m, mask.shape) > 2 for m, mask in zip(maps, MASKS, strict=True)]
    hits = sum((c & m).sum() for c, m in zip(called, MASKS, strict=True))
    expected = 2 * hits / (sum(c.sum() for c in called) + sum(m.sum() for m in MASKS))
    assert rows["pixel_segf1"] == pytest.approx(expected)


def test_masks_are_packed():
    mask = np.random.default_rng(0).random((37, 41)) < 0.3
    packed = PackedMask.of(mask)
    assert packed.bits.nbytes == -(-37 * 41 // 8)
    assert (packed.unpacked() == mask).all()


def test_missing_masks_are_noted():
    shown = images(MASKS, View(16))
    shown.dataset.mask = lambda sample: None if sample.id == "1" else MASKS[int(sample.id)]
    truth = NativeTruth(shown)
    assert truth.known.tolist() == [True, False, True]
    assert truth.notes == ("1 of 2 defective images have no mask; pixel metrics leave them out.",)
