import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.data.images import View
from iadbe.detectors import pni
from iadbe.detectors.pni import PNI
from iadbe.errors import BadConfig
from iadbe.layers.features.patch_embedding import patch_embedding

SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none", "width": 16, "depth": 3, "epochs": 1}


def fitted(pixels, seed=0, **params):
    detector, losses = PNI(**{**SMALL, **params}), []
    with progress.listening(lambda r: losses.append(r.value) if r.phase == "loss" else None):
        detector.fit(images(pixels), np.random.default_rng(seed))
    return detector, losses


def test_position_candidates_exceed_the_threshold_in_the_neighbourhood():
    detector, _ = fitted(parts(4), coreset=0.05)
    shown = detector._patches(batch(parts(4)))
    hit = torch.cdist(pni.flattened(shown).double(), detector.bank.double()).argmin(1).view(4, 16, 16)
    for row, column in ((0, 0), (7, 9), (15, 3)):
        around = hit[:, max(0, row - 4) : row + 5, max(0, column - 4) : column + 5]
        share = around.flatten().bincount(minlength=len(detector.bank)) / around.numel()
        assert torch.equal(detector.position_candidates[row * 16 + column], share > 0.5 / len(detector.bank))


def test_a_normal_patch_at_the_wrong_position_is_anomalous():
    """With the bright and the dark half exchanged, every patch is in the bank, but not at its position."""
    rng = np.random.default_rng(0)

    def halves(*values):
        grey = np.repeat(np.repeat(np.array([values]), 64, 0), 32, 1)[:, :, None] * np.ones(3)
        return (grey + rng.normal(0, 4, (64, 64, 3))).clip(0, 255).astype(np.uint8)

    real = {"backbone": "tf_efficientnet_lite0", "weights": "auto"}
    detector, _ = fitted([halves(60, 190) for _ in range(8)], coreset=0.05, reach=2, epochs=20, **real)
    right, wrong = (detector.predict(batch([halves(*v)])) for v in ((60, 190), (190, 60)))
    plain = torch.cdist(pni.flattened(detector._patches(batch([halves(190, 60)]))), detector.bank).amin(1)
    assert float(wrong.map.mean()) > 1.5 * float(right.map.mean())
    assert float(wrong.map.mean()) > 1.15 * float(plain.mean())


def test_the_loss_of_the_neighbourhood_network_falls(monkeypatch):
    monkeypatch.setattr(pni, "POSITIONS", 256)
    _, losses = fitted(parts(6), epochs=12, clusters=16, coreset=0.05, width=64)
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:3])


def test_every_cluster_has_a_bank_patch():
    detector, _ = fitted(parts(2), coreset=0.1, clusters=20)
    assert len(detector.clusters) == 20
    assert set(detector.cluster_of.tolist()) == set(range(20))
    assert detector.network[-1].out_features == 20
    assert len(fitted(parts(1), coreset=0.02)[0].clusters) == round(0.02 * 256)


def test_the_refinement_network_learns_synthetic_defects():
    detector, losses = fitted(parts(4), refine=1.0, steps=12, coreset=0.1)
    refining = losses[-12:]
    assert np.mean(refining[-5:]) < np.mean(refining[:5])
    plain, _ = fitted(parts(4), coreset=0.1)
    shown = batch(parts(2, seed=3, defective=True))
    refined = detector.predict(shown)
    assert torch.equal(refined.score, refined.map.amax((1, 2)))  # as in the authors' evaluation
    assert not torch.allclose(refined.map, detector._scaled(plain.predict(shown).map), atol=1e-3)


def test_a_score_is_the_mean_distance_to_the_nearest_candidates():
    """Candidates by neighbourhood have a probability above half of one divided by the size of the bank."""
    detector, _ = fitted(parts(4), coreset=0.1, clusters=12)
    size = len(detector.bank)
    assert size == 102
    shown = batch(parts(1, seed=3, defective=True))
    features = detector._patches(shown)
    with torch.no_grad():
        rows, padded = pni.flattened(features), detector._padded(features)
        expected = []
        for number, row in enumerate(rows):
            logits = detector.network(pni.neighbourhoods(padded, torch.tensor([number]), detector.reach))[0]
            probability = (logits / 2).softmax(0)[detector.cluster_of]
            distances = []
            for mask in (probability > 0.5 / size, detector.position_candidates[number]):
                distance = torch.dist(row, detector.bank[mask][(detector.bank[mask] - row).norm(dim=1).argmin()])
                distances.append(float(distance))
            expected.append(sum(distances) / 2)
        torch.testing.assert_close(detector._scores(features).flatten(), torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_a_dent_is_detected():
    detector, _ = fitted(parts(10), backbone="tf_efficientnet_lite0", weights="auto", coreset=0.1, epochs=2)
    good, bad = (detector.predict(batch(parts(6, seed=s, defective=d))).score for s, d in ((2, False), (3, True)))
    assert (bad[:, None] > good).float().mean() > 0.9


def test_a_patch_is_pooled_over_5_x_5_positions():
    shown = batch(parts(1))
    detector = PNI(**SMALL, embedding=24)
    layers = detector.backbone(shown)
    torch.testing.assert_close(detector._patches(shown), patch_embedding(layers, 24, side=5))
    plain = PNI(**SMALL)._patches(shown)
    first = torch.nn.functional.avg_pool2d(layers[0], 5, 1, 2)
    torch.testing.assert_close(plain[:, : first.shape[1]], first)


def test_another_view_is_refused():
    detector, _ = fitted(parts(2))
    with pytest.raises(BadConfig, match="Use the view of the fit"):
        detector.predict(batch(parts(1), View(32)))


@pytest.mark.parametrize("wrong", [{"coreset": 0.0}, {"depth": 1}, {"refine": 2.0}, {"reach": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        PNI(**{**SMALL, **wrong})
