import numpy as np
import pytest
import torch

from drawn_images import Drawn
from iadbe.data.images import Images, View
from iadbe.errors import BadConfig
from iadbe.layers.training.anomalies import anomaly_source, labels_needed
from iadbe.types import Sample, TrainingImage, TrainingLabel

SIDE = 16


class Defective(Drawn):
    """Image k is grey level 10 k; images from the third on are defective, the last one without a mask."""

    def samples(self):
        return tuple(
            Sample(name, "part", "train", "dent" if k > 1 else "good", f"{name}.png", "mask" if 1 < k < 4 else None)
            for k, name in enumerate(self.pixels)
        )

    def mask(self, sample):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[int(sample.id), 3:6] = True
        return mask


def train():
    data = Defective([np.full((SIDE, SIDE, 3), 10 * k, np.uint8) for k in range(5)])
    normal, masked, bare = TrainingLabel.NORMAL, TrainingLabel.MASKED, TrainingLabel.ANOMALOUS
    items = [TrainingImage(s, t) for s, t in zip(data.samples(), [normal, normal, masked, masked, bare], strict=True)]
    return Images(data, items, View(SIDE))


def test_labelled_anomalies_are_drawn_with_their_masks():
    normal = torch.zeros(40, 3, SIDE, SIDE)
    found = anomaly_source("labelled", train())(normal, torch.Generator().manual_seed(0))
    number = (found.image[:, 0, 0, 0] * 25.5).round().long()
    assert set(number.tolist()) == {2, 3, 4}
    assert found.known.tolist() == [n != 4 for n in number.tolist()]
    for n, mask in zip(number.tolist(), found.mask[:, 0], strict=True):
        expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        if n != 4:
            expected[n, 3:6] = True
        assert torch.equal(mask, expected)


def test_without_labels_the_sentence_says_what_to_do():
    with pytest.raises(BadConfig, match="semi and supervised label some; with anomalies=synthetic"):
        anomaly_source("labelled", train().normal())


def test_synthetic_anomalies_change_their_mask_alone():
    normal = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    make = anomaly_source("synthetic", train().normal())
    found = make(normal, torch.Generator().manual_seed(0))
    changed = (found.image != normal).any(1, keepdim=True)
    assert found.mask.flatten(1).any(1).all()
    assert not (changed & ~found.mask).any()
    assert (changed & found.mask).sum() > 0.99 * found.mask.sum()
    assert found.known.all()
    again = make(normal, torch.Generator().manual_seed(0))
    assert torch.equal(again.image, found.image)


def test_the_truth_of_a_batch_follows_its_ids():
    images = train()
    batch = next(images.subset([4, 0, 3]).batches(3))
    anomalous, mask, known = images.truth(batch)
    assert (anomalous.tolist(), known.tolist()) == ([True, False, True], [False, True, True])
    assert mask.flatten(1).sum(1).tolist() == [0, 0, 3]
    assert len(images.anomalous()) == 3


def test_a_thin_defect_keeps_its_pixels_in_a_small_view():
    small = Images(train().dataset, train().items, View(8))
    _, mask, known = small.truth(next(small.subset([2]).batches(1)))
    assert known.tolist() == [True]
    assert mask[0, 0, 1].any()


def test_labelled_anomalies_need_labels_and_synthetic_ones_nothing():
    assert labels_needed("labelled") == {"labels"}
    assert labels_needed("synthetic") == frozenset()
    with pytest.raises(BadConfig, match="labelled or synthetic, not 'drawn'"):
        labels_needed("drawn")
