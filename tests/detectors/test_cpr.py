import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors.cpr import CPR
from iadbe.errors import BadConfig

SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none", "width": 8, "steps": 2}


def fitted(pixels, seed=0, **params):
    detector, losses = CPR(**{**SMALL, **params}), []
    with progress.listening(lambda r: losses.append(r.value) if r.phase == "loss" else None):
        detector.fit(images(pixels), np.random.default_rng(seed))
    return detector, losses


def test_descriptors_learn_to_separate_defects():
    _, losses = fitted(parts(8), steps=25, backbone="tf_efficientnet_lite0", weights="auto", width=16)
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_training_images_are_their_own_nearest_reference():
    detector, _ = fitted(parts(6), references=1)
    shown = batch(parts(6))
    histograms = detector._histograms(detector.backbone(shown)[0])
    assert detector._nearest_images(histograms, 1).flatten().tolist() == list(range(6))
    others = detector._nearest_images(histograms, 9, but_itself=True)
    assert [sorted({*row, n}) for n, row in enumerate(others.tolist())] == [list(range(6))] * 6
    assert float(detector.predict(shown).map.max()) < 0.01  # but for half precision


def test_the_score_is_the_mean_of_the_largest_pixels():
    detector, _ = fitted(parts(2), top=100)
    found = detector.predict(batch(parts(2, seed=1)))
    expected = found.map.flatten(1).sort(1).values[:, -100:].mean(1)
    torch.testing.assert_close(found.score, expected)


def test_a_dent_is_found():
    detector, _ = fitted(parts(12), backbone="tf_efficientnet_lite0", weights="auto", steps=20, width=16, top=60)
    good, bad = (detector.predict(batch(parts(6, seed=s, defective=d))).score for s, d in ((2, False), (3, True)))
    assert (bad[:, None] > good).float().mean() > 0.9


@pytest.mark.parametrize("wrong", [{"regions": (3,)}, {"regions": (2, 1)}, {"steps": 0}, {"width": 3}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        CPR(**{**SMALL, **wrong})
