import numpy as np
import pytest

from iadbe.data.aligned import AlignedDataset
from iadbe.data.alignment import Template
from iadbe.data.transforms import TransformedDataset, with_transform
from iadbe.datasets.toy import Toy
from iadbe.protocol import Limits

pytest.importorskip("cv2", reason="alignment needs OpenCV: pip install 'iadbe[align]'")


@pytest.fixture(scope="module")
def toy():
    return TransformedDataset(Toy())


def of(toy, split, defective=False):
    own = [s for s in toy.samples() if s.category == "washer" and s.split == split]
    return [s for s in own if s.is_anomaly == defective]


@pytest.fixture(scope="module")
def aligned(toy):
    template = Template.learn([toy.image(s) for s in of(toy, "train")[:10]], Limits(rotation=60, shift=0.15))
    return AlignedDataset(toy, {"washer": template})


def test_a_turned_part_looks_as_if_it_had_not_been_turned(toy, aligned):
    sample = of(toy, "test")[0]
    turned = with_transform(sample, "rotation", 20)
    straight, again = aligned.image(sample).astype(float), aligned.image(turned).astype(float)
    centre = (slice(60, 196), slice(60, 196))
    moved = np.abs(toy.image(turned)[centre].astype(float) - toy.image(sample)[centre]).mean()
    assert np.abs(again[centre] - straight[centre]).mean() < moved / 4
    assert aligned.pose(turned).rotation - aligned.pose(sample).rotation == pytest.approx(-20, abs=0.3)


def test_masks_follow(toy, aligned):
    sample = of(toy, "test", defective=True)[0]
    turned = with_transform(sample, "rotation", 20)
    straight, again = aligned.mask(sample), aligned.mask(turned)
    assert (straight & again).sum() > 0.8 * (straight | again).sum()
    assert sum(r.mask.sum() for r in aligned.defects(turned)) == again.sum()


def test_what_an_image_does_not_show_does_not_count(toy, aligned):
    shifted = with_transform(of(toy, "test")[0], "translation", 0.1)
    region = aligned.region(shifted)
    assert region.dtype == bool
    assert 0.02 < 1 - region.mean() < 0.4


def test_an_image_without_the_part_keeps_its_place(toy, aligned, monkeypatch):
    sample = of(toy, "test")[1]
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    monkeypatch.setattr(toy, "image", lambda sample: noise)
    fresh = AlignedDataset(toy, aligned.templates)
    assert not fresh.pose(sample).found
    np.testing.assert_array_equal(fresh.image(sample), noise)
    assert fresh.region(sample) is None


def test_a_category_without_a_reference_is_compared_with_all(toy, aligned):
    sample = of(toy, "test")[0]
    other = AlignedDataset(toy, {"other": aligned.templates["washer"]})
    np.testing.assert_array_equal(other.image(sample), aligned.image(sample))
