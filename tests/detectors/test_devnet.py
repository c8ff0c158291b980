import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.detectors.devnet import DevNet
from iadbe.errors import BadConfig
from iadbe.types import TrainingLabel

SMALL = {"backbone": "resnet10t", "weights": "none", "batch": 8, "top": 0.3, "learning_rate": 2e-3}


def train():
    labels = [TrainingLabel.NORMAL] * 12 + [TrainingLabel.ANOMALOUS] * 4
    return images([*parts(12), *parts(4, defective=True)], labels=labels)


def fitted(**params):
    return fitted_losses.fit(DevNet(**{**SMALL, **params}), train())


def test_the_score_is_the_mean_of_the_highest_absolute_scores_at_two_sizes():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = DevNet(**SMALL).eval()
    shown = batch(parts(2))
    expected = []
    for side in (64, 32):
        resized = (
            F.interpolate(shown.image, (side, side), mode="bilinear", antialias=True) if side < 64 else shown.image
        )
        features = detector.encoder(resized)  # (2, 512, 2, 2) and (2, 512, 1, 1)
        scores = torch.einsum("bchw,c->bhw", features, detector.scoring.weight[0, :, 0, 0]) + detector.scoring.bias
        each = [sorted(abs(s) for s in row.flatten().tolist())[::-1] for row in scores]
        expected.append([np.mean(e[: max(1, int(0.3 * len(e)))]) for e in each])
    found = detector.predict(shown).score
    np.testing.assert_allclose(found.numpy(), np.mean(expected, 0), rtol=1e-4)


def test_the_map_is_the_smoothed_gradient_of_the_score():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = DevNet(**SMALL, sigma=0.0).eval()
    shown = batch(parts(1))
    found = detector.predict(shown)
    y, x = np.unravel_index(int(found.map[0].argmax()), found.map[0].shape)
    step = 1e-2
    slopes = []
    for colour in range(3):
        ends = []
        for sign in (1, -1):
            moved = shown.image.clone()
            moved[0, colour, y, x] += sign * step
            with torch.no_grad():
                ends.append(float(detector._score(moved)))
        slopes.append(abs(ends[0] - ends[1]) / (2 * step))
    assert float(found.map[0, y, x]) == pytest.approx(sum(slopes), rel=0.1)
    with torch.inference_mode():
        again = detector.predict(shown)
    torch.testing.assert_close(again.map, found.map)


def test_training_pushes_labelled_anomalies_above_normal_images():
    detector, losses = fitted(steps=40)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    good, bad = (detector.predict(batch(parts(6, seed=9, defective=d))).score for d in (False, True))
    assert float(bad.min()) > float(good.max())


def test_synthetic_anomalies_need_no_labels():
    detector = DevNet(**SMALL, steps=2, anomalies="synthetic")
    detector.fit(images(parts(3)), np.random.default_rng(0))
    assert torch.isfinite(detector.predict(batch(parts(2))).score).all()


@pytest.mark.parametrize(
    "params", [{"anomalies": "none"}, {"batch": 1}, {"top": 0.0}, {"top": 1.5}, {"scales": 0}, {"steps": 0}]
)
def test_impossible_parameters_are_reported(params):
    with pytest.raises(BadConfig, match=next(iter(params))):
        DevNet(**{**SMALL, **params})
