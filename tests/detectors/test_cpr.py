import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors import cpr
from iadbe.detectors.cpr import CPR
from iadbe.errors import BadConfig

SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none", "width": 8, "steps": 2}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(pixels, seed=0, **params):
    detector, losses = CPR(**{**SMALL, **params}), []
    with progress.listening(lambda r: losses.append(r.value) if r.phase == "loss" else None):
        detector.fit(images(pixels), np.random.default_rng(seed))
    return detector, losses


@pytest.mark.parametrize("region", [1, 3])
def test_a_patch_is_sought_around_its_place_in_every_reference(region):
    query = F.normalize(torch.randn(5, 4, 6, generator=source()), dim=0)
    references = F.normalize(torch.randn(3, 5, 4, 6, generator=source(1)), dim=1)
    found = cpr._farness(query, references, region)
    edge = region // 2
    for y in range(4):
        for x in range(6):
            near = [
                float(query[:, y, x] @ references[k, :, i, j])
                for k in range(3)
                for i in range(max(0, y - edge), min(4, y + edge + 1))
                for j in range(max(0, x - edge), min(6, x + edge + 1))
            ]
            assert float(found[y, x]) == pytest.approx(1 - max(near), abs=1e-5)


def test_pairs_lie_where_they_should():
    mask = torch.zeros(2, 1, 32, 48, dtype=torch.bool)
    mask[0, :, 8:12, 10:20] = True
    pairs = cpr._pairs(mask, 6.0, source())

    def pixels(places):
        return ((places + 1) / 2 * torch.tensor([48, 32])).floor().long()

    def marked(places, image):
        x, y = pixels(places[image]).T
        return mask[image, 0, y, x]

    assert bool(pairs.same_weight.all())
    assert not marked(pairs.same, 0).any()
    assert len(pixels(pairs.same[0]).unique(dim=0)) == cpr.POINTS  # no place twice
    assert pairs.defect_weight.sum(1).tolist() == [40, 0]
    assert marked(pairs.defect[:, :40], 0).all()
    apart = ((pairs.there - pairs.here) / 2 * torch.tensor([48, 32])).norm(dim=2)
    assert torch.equal(pairs.far_weight > 0, apart > 6)
    assert torch.equal(pairs.here, pairs.same)


def test_the_hinge_is_cubed_and_counts_pairs_with_a_weight():
    excess, weight = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert float(cpr._hinge(excess, weight)) == pytest.approx(0.5**3 / 2)
    assert float(cpr._hinge(excess, torch.zeros(1, 3))) == 0


def test_values_at_a_place_are_those_of_its_position():
    features = torch.arange(12.0).view(1, 1, 3, 4)
    middle = torch.tensor([[[(2 + 0.5) / 4, (1 + 0.5) / 3]]]) * 2 - 1
    assert float(cpr._at(features, middle)) == pytest.approx(6)


def test_descriptors_learn_to_tell_defects():
    _, losses = fitted(parts(8), steps=25, backbone="tf_efficientnet_lite0", weights="auto", width=16)
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_training_images_are_their_own_nearest_reference():
    detector, _ = fitted(parts(6), references=1)
    shown = batch(parts(6))
    layout = detector._layout(detector.backbone(shown)[0])
    assert cpr.divergence(layout, detector.layouts).argmin(1).tolist() == list(range(6))
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


def test_disturbed_images_stay_images():
    image = torch.rand(40, 3, 16, 16, generator=source(1))
    found = cpr._disturbed(image, source())
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    same = (found == image).flatten(1).float().mean(1)
    assert 0.3 < float((same == 1).float().mean()) < 0.7  # half of them: 0.7 squared
    dotted = same[(same > 0.5) & (same < 1)]
    assert 0.9 < float(dotted.mean()) < 0.99


@pytest.mark.parametrize("wrong", [{"regions": (3,)}, {"regions": (2, 1)}, {"steps": 0}, {"width": 3}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        CPR(**{**SMALL, **wrong})
