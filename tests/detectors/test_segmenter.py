import numpy as np
import pytest
import torch

import fitted_losses
from drawn_images import Drawn, batch, dents_shown, images, parts
from iadbe.data.images import Images, View
from iadbe.detectors.segmenter import Segmenter, mirrored, segmentation_loss, unmasked_loss
from iadbe.errors import BadConfig
from iadbe.types import Sample, TrainingImage, TrainingLabel

SMALL = {"backbone": "resnet10t", "weights": "none", "width": 8, "learning_rate": 3e-3}


class Dented(Drawn):
    """Parts, of which the dented ones have masks."""

    def samples(self):
        return tuple(
            Sample(n, "part", "train", "dent" if self.mask_of(p).any() else "good", f"{n}.png", "mask")
            for n, p in self.pixels.items()
        )

    def mask(self, sample):
        return self.mask_of(self.pixels[sample.id])

    @staticmethod
    def mask_of(pixels):
        return pixels.max(2) < 40


def labelled():
    data = Dented([*parts(12), *parts(6, defective=True)])
    items = [TrainingImage(s, TrainingLabel.MASKED if s.is_anomaly else TrainingLabel.NORMAL) for s in data.samples()]
    return Images(data, items, View(64))


@pytest.fixture(scope="module")
def fitted():
    return fitted_losses.fit(Segmenter(**SMALL, steps=40), labelled())


def test_it_learns_where_labelled_defects_are(fitted):
    detector, losses = fitted
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    dented = parts(6, seed=9, defective=True)
    found, good = detector.predict(batch(dented)), detector.predict(batch(parts(6, seed=9)))
    assert float(found.score.min()) > float(good.score.max())
    assert dents_shown(dented, found.map.numpy(), within=6) >= 5


def test_the_score_is_the_mean_of_the_highest_logits(fitted):
    detector, _ = fitted
    found = detector.predict(batch(parts(2)))
    expected = [np.sort(m.flatten())[-4:].mean() for m in found.map.numpy()]  # 4 of 64 x 64 pixels
    np.testing.assert_allclose(found.score.numpy(), expected, rtol=1e-5)


def test_the_loss_is_cross_entropy_and_dice_of_known_masks():
    logits = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]).bool()
    known = torch.tensor([True, True, False])
    p, t = 1 / (1 + np.exp(-logits[:2].double().numpy())), mask[:2].numpy()
    entropy = -np.where(t, np.log(p), np.log(1 - p)).mean()
    dice = 1 - (2 * p[t].sum() + 1) / (p.sum() + t.sum() + 1)
    assert float(segmentation_loss(logits, mask, known)) == pytest.approx(entropy + dice, rel=1e-5)


def test_an_anomaly_without_a_mask_trains_its_score_alone():
    score = torch.tensor([0.5, -2.0, 1.0], requires_grad=True)
    found = unmasked_loss(score, torch.tensor([True, False, False]))
    p = 1 / (1 + np.exp(-np.array([-2.0, 1.0])))
    assert float(found.detach()) == pytest.approx(-np.log(p).mean(), rel=1e-5)
    none = unmasked_loss(score, torch.tensor([True, True, True]))
    assert float(none.detach()) == 0
    none.backward()
    assert torch.equal(score.grad, torch.zeros(3))


def test_masks_are_mirrored_with_their_images():
    image = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    seen = set()
    for seed in range(20):
        turned, mask, _ = mirrored(image, image[:, :1] > 0.5, None, torch.Generator().manual_seed(seed))
        assert torch.equal(mask, turned[:, :1] > 0.5)
        seen.add(turned.numpy().tobytes())
    assert len(seen) == 8


def test_labels_without_masks_and_synthetic_anomalies_train_too():
    for anomalies, labels in (
        ("labelled", [TrainingLabel.NORMAL] * 2 + [TrainingLabel.ANOMALOUS]),
        ("synthetic", [TrainingLabel.NORMAL] * 3),
    ):
        detector = Segmenter(**SMALL, steps=2, anomalies=anomalies)
        detector.fit(images(parts(3), labels=labels), np.random.default_rng(0))
        assert torch.isfinite(detector.predict(batch(parts(2))).score).all()


@pytest.mark.parametrize("params", [{"anomalies": "none"}, {"batch": 1}, {"top": 0.0}, {"width": 0}, {"steps": 0}])
def test_impossible_parameters_are_reported(params):
    with pytest.raises(BadConfig, match=next(iter(params))):
        Segmenter(**{**SMALL, **params})
