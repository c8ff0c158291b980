import numpy as np
import pytest

from iadbe.dataset import Dataset
from iadbe.images import Images, View
from iadbe.testing import Evidence, ground_truth, measure
from iadbe.types import Example, Sample


class Made(Dataset):
    """Pictures of one grey, with masks as given: an array, None for a missing one."""

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
    made = Made(masks)
    return Images(made, [Example(s) for s in made.samples()], View(64))


def test_scores_reach_the_metrics_raw():
    """Separable scores far from 0 and 1: clamping, a sigmoid or half-precision would make ties of them."""
    shown = images(False, False, SPOT, SPOT)
    for scale in (1e-6, 1.0, 1e6):
        score = np.array([20, 25, 30, 40], np.float32) * np.float32(scale)
        assert measure(Evidence(score), shown, ["image_auroc"])[0] == {"image_auroc": 1.0}


def test_perfect_maps_give_one():
    shown = images(False, SPOT)
    maps = np.stack([EMPTY, SPOT]).astype(np.float32)
    names = ["pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro"]
    rows, notes = measure(Evidence(np.array([0, 1], np.float32), maps), shown, names)
    assert rows == pytest.approx(dict.fromkeys(names, 1.0))
    assert notes == []


def test_a_mask_of_another_size_is_brought_to_the_view():
    large = np.zeros((128, 256), bool)
    large[:64, :128] = True
    masks, known, _ = ground_truth(images(False, large))
    assert known.all()
    assert masks[1, :32, :32].all()
    assert masks[1].sum() == 32 * 32


@pytest.mark.parametrize("lacking", [None, EMPTY], ids=["missing", "empty"])
def test_defects_without_a_mask_are_left_out_and_said(lacking):
    shown = images(False, SPOT, lacking)
    maps = np.stack([EMPTY, SPOT, SPOT]).astype(np.float32)
    maps[2] = 9  # would ruin the metrics if it counted as clean
    rows, notes = measure(Evidence(np.array([0, 1, 2], np.float32), maps), shown, ["image_auroc", "pixel_auroc"])
    assert rows == {"image_auroc": 1.0, "pixel_auroc": 1.0}
    assert notes == ["1 of 2 defective pictures have no mask; pixel metrics leave them out."]


def test_without_any_mask_there_are_no_pixel_rows():
    rows, notes = measure(
        Evidence(np.array([0, 1], np.float32), np.zeros((2, 64, 64), np.float32)),
        images(False, None),
        ["image_auroc", "pixel_auroc"],
    )
    assert list(rows) == ["image_auroc"]
    assert "no masks" in notes[0]


def test_without_maps_there_are_no_pixel_rows():
    rows, notes = measure(Evidence(np.array([0, 1], np.float32)), images(False, SPOT), ["image_ap", "pixel_ap"])
    assert list(rows) == ["image_ap"]
    assert "does not localise" in notes[0]


def test_no_defects_in_the_test_is_nan_not_zero():
    rows, _ = measure(Evidence(np.array([0, 1], np.float32)), images(False, False), ["image_auroc"])
    assert np.isnan(rows["image_auroc"])
