import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.golden import Golden
from iadbe.errors import BadConfig
from iadbe.layers.features.similarity import cross_correlation, ssim
from iadbe.types import TrainingLabel

GOOD = parts(12)


def fitted(pixels=GOOD, seed=0, **params):
    detector = Golden(**params)
    detector.fit(images(pixels), np.random.default_rng(seed))
    return detector


@pytest.mark.parametrize(("similarity", "function"), [("ssim", ssim), ("ncc", cross_correlation)])
def test_the_map_is_the_difference_to_the_mean(similarity, function):
    shown = batch(parts(2, seed=1, defective=True))
    mean = batch(GOOD).image.double().mean(0, keepdim=True).float()
    difference = 1 - function(shown.image, mean.expand_as(shown.image)).mean(1)
    expected = [gaussian_filter(d.double().numpy(), 2, mode="mirror", truncate=4) for d in difference]
    found = fitted(similarity=similarity, sigma=2.0).predict(shown)
    np.testing.assert_allclose(found.map, expected, atol=5e-4)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_the_nearest_good_image_is_the_reference():
    detector = fitted(reference="nearest")
    found = detector.predict(batch(GOOD))
    torch.testing.assert_close(found.score, torch.zeros(12), atol=1e-3, rtol=0)  # each image is its own reference
    shown = batch(parts(3, seed=1))
    distance = torch.cdist(shown.image.flatten(1).double(), batch(GOOD).image.flatten(1).double())
    assert torch.equal(detector._nearest(shown.image), batch(GOOD).image[distance.argmin(1)])


def test_at_most_some_references_are_kept():
    first, same, other = (fitted(reference="nearest", most=4, seed=s).references for s in (0, 0, 1))
    assert len(first) == 4
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("reference", ["mean", "nearest"])
@pytest.mark.parametrize("similarity", ["ssim", "ncc"])
def test_dents_are_detected_and_localised(reference, similarity):
    detector = fitted(parts(30), reference=reference, similarity=similarity, sigma=2.0)
    assert_dents_are_found(detector, shown=6, within=64 / 5)


def test_merging_means_equals_fitting_on_all_images():
    merged = Golden()
    merged.merge([fitted(GOOD[:3]), fitted(GOOD[3:])])
    torch.testing.assert_close(merged.references, fitted().references)
    assert int(merged.count) == 12


def test_merging_nearest_concatenates_the_references():
    merged = Golden("nearest")
    merged.merge([fitted(GOOD[:3], reference="nearest"), fitted(GOOD[3:], reference="nearest")])
    assert torch.equal(merged.references, fitted(reference="nearest").references)


@pytest.mark.parametrize("wrong", [{"reference": "median"}, {"similarity": "l2"}, {"window": 4}, {"most": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="not"):
        Golden(**wrong)


def test_another_view_and_no_good_image_are_refused():
    with pytest.raises(BadConfig, match="Use the view of the fit"):
        fitted().predict(batch(parts(1), View(32)))
    with pytest.raises(BadConfig, match="no normal image"):
        Golden().fit(images(GOOD[:1], labels=[TrainingLabel.ANOMALOUS]), np.random.default_rng(0))


@pytest.mark.slow
def test_real_bottles():
    train, test = bottles(View(128))
    detector = Golden()
    detector.fit(train, np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.85
