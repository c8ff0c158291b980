import numpy as np
import pytest
import torch

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.detectors.dra import DRA
from iadbe.errors import BadConfig
from iadbe.layers.blocks.encoder import halved
from iadbe.types import TrainingLabel

SMALL = {"backbone": "resnet10t", "weights": "none", "batch": 9, "references": 2, "top": 0.3, "learning_rate": 2e-3}


def train():
    labels = [TrainingLabel.NORMAL] * 12 + [TrainingLabel.ANOMALOUS] * 4
    return images([*parts(12), *parts(4, defective=True)], labels=labels)


@pytest.fixture(scope="module")
def fitted():
    return fitted_losses.fit(DRA(**SMALL, steps=40), train())


def head_scores(detector, image, references):
    """Return holistic, seen, pseudo and composite scores (4, B), each position and image by itself."""
    found = []
    for scale, reference in enumerate(references):
        rows = []
        for one in detector.encoder(halved(image, scale)):
            positions = one.flatten(1).T  # (h * w, C)

            def highest(head, at):
                scores = sorted((at @ head.weight[0, :, 0, 0] + head.bias).abs().tolist())[::-1]
                return np.mean(scores[: max(1, int(0.3 * len(scores)))])

            residual = detector.residual(reference - one[None])[0].flatten(1).T
            holistic = float(detector.holistic(positions.mean(0)[None]).abs())
            plain = [highest(head, positions) for head in (detector.seen, detector.pseudo)]
            rows.append([holistic, *plain, highest(detector.composite, residual)])
        found.append(rows)
    return np.mean(found, 0).T


@torch.no_grad()
def test_the_score_is_the_sum_of_the_heads_less_the_holistic_one(fitted):
    detector, _ = fitted
    shown = batch(parts(3, seed=5))
    references = [detector.reference0, detector.reference1]
    holistic, seen, pseudo, composite = head_scores(detector, shown.image, references)
    np.testing.assert_allclose(detector.predict(shown).score.numpy(), seen + pseudo + composite - holistic, rtol=1e-3)


@torch.no_grad()
def test_each_head_learns_its_own_images(fitted):
    detector, _ = fitted
    detector.eval()
    image = batch(parts(8, seed=3)).image
    kind = torch.tensor([0, 0, 1, 1, 2, 2])
    references = [detector.encoder(halved(image[:2], s)).mean(0, keepdim=True) for s in range(2)]
    scores = head_scores(detector, image[2:], references)
    generator = torch.Generator().manual_seed(4)
    expected = 0.0
    for score, wanted, shown in zip(
        scores,
        (kind == 0, kind != 0, kind != 0, kind != 0),
        (kind >= 0, kind != 2, kind != 1, kind >= 0),
        strict=True,
    ):
        prior = torch.randn(5000, generator=generator)
        mean, deviation = float(prior.mean()), float(prior.std())
        d = (score - mean) / deviation
        terms = np.where(wanted.numpy(), np.maximum(0, 5 - d), np.abs(d))
        expected += terms[shown.numpy()].mean()
    found = float(detector._loss(image, kind, torch.Generator().manual_seed(4)))
    assert found == pytest.approx(expected, rel=1e-3)


def test_training_tells_labelled_anomalies_from_normal_images(fitted):
    detector, losses = fitted
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    good, bad = (detector.predict(batch(parts(6, seed=9, defective=d))).score for d in (False, True))
    assert float(bad.median()) > float(good.max())


def test_synthetic_anomalies_need_no_labels():
    detector = DRA(**SMALL, steps=2, anomalies="synthetic")
    detector.fit(images(parts(3)), np.random.default_rng(0))
    assert torch.isfinite(detector.predict(batch(parts(2))).score).all()


@pytest.mark.parametrize("params", [{"anomalies": "none"}, {"batch": 2}, {"top": 0.0}, {"references": 0}, {"steps": 0}])
def test_impossible_parameters_are_reported(params):
    with pytest.raises(BadConfig, match=next(iter(params))):
        DRA(**{**SMALL, **params})
