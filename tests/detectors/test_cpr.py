import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors.cpr import CPR
from iadbe.errors import BadConfig
from iadbe.parameters import complete
from iadbe.registry import card

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


def test_textures_have_no_distant_pairs_and_no_tiles_of_their_own():
    """As in the authors' code, which also trains them for 500 steps instead of 40 000."""
    objects, textures = CPR(**SMALL), CPR(**SMALL, kind="texture")
    assert (objects.distant, objects.textures.shuffled) == (True, 0.5)
    assert (textures.distant, textures.textures.shuffled) == (False, 0.0)
    assert objects.textures.tiles == 16
    own = card("detectors", "cpr")
    assert complete(own, {"distant": False})["kind"] == complete(own, {"distant": "false"})["kind"] == "texture"
    of_paper = {key: value for key, value in own.get("paper_by_category").items() if value["steps"] == 500}
    assert {key.partition("/")[2] for key in of_paper} == {"carpet", "grid", "leather", "tile", "wood", "02"}


def test_a_synthetic_image_has_a_defect_with_a_probability_of_nine_tenths():
    image = torch.rand(300, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    changed, mask = CPR(**SMALL)._with_defects(image, torch.Generator().manual_seed(1))
    defective = mask.flatten(1).any(1)
    assert 0.85 < float(defective.float().mean()) < 0.95
    assert torch.equal(changed[~defective], image[~defective])
    assert int(mask.flatten(1).sum(1)[defective].min()) >= 2  # 0.1 % of 1024 pixels


@pytest.mark.parametrize("wrong", [{"regions": (3,)}, {"regions": (2, 1)}, {"steps": 0}, {"width": 3}, {"kind": "x"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        CPR(**{**SMALL, **wrong})
