from pathlib import Path

import numpy as np
import pytest
import torch

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import Images, View
from iadbe.detectors import softpatch
from iadbe.detectors.softpatch import SoftPatch
from iadbe.errors import BadConfig
from iadbe.types import TrainingImage

SHARED = Path(__file__).parents[3] / "shared"


def fitted(pixels, seed=0, **params):
    detector = SoftPatch("resnet10t", (1, 2), "none", **params)
    detector.fit(images(pixels), np.random.default_rng(seed))
    return detector


def patches(detector, pixels):
    return softpatch.flattened(detector._patches(batch(pixels)))


def nearest(points, bank):
    return torch.cdist(points.double(), bank.double()).amin(1)


@pytest.fixture(scope="module")
def noisy():
    """Fourteen good parts and two with a dent."""
    return parts(14) + parts(2, defective=True)


@pytest.mark.parametrize("discriminator", ["lof", "nearest", "gaussian"])
def test_defects_among_the_training_images_are_detected(noisy, discriminator):
    """A memory bank of all patches contains them, and scores them near 0."""
    soft, plain = (
        fitted(noisy, coreset=1.0, discriminator=discriminator),
        fitted(noisy, coreset=1.0, threshold=0.0, soft=False),
    )
    shown = batch(noisy)
    assert float(plain.predict(shown).score[14:].max()) < 1e-4
    score = soft.predict(shown).score
    assert float(score[14:].min()) > float(score[:14].max())


def test_patches_with_the_largest_outlier_factors_are_discarded(noisy):
    detector = fitted(noisy, coreset=1.0, threshold=0.2, projection=0)
    rows = patches(detector, noisy)
    groups = rows.view(16, -1, rows.shape[1]).transpose(0, 1)
    factor = softpatch.local_outlier_factor(groups, 5).T.flatten()
    assert len(detector.bank) == round(0.8 * len(rows))
    kept = nearest(rows, detector.bank) < 1e-4
    assert float(factor[kept].max()) <= float(factor[~kept].min())
    torch.testing.assert_close(detector.lof_weight, factor[kept], rtol=1e-4, atol=1e-4)


def test_the_bank_size_is_a_share_of_all_patches_but_at_most_the_kept_ones(noisy):
    total = len(patches(fitted(noisy), noisy))
    assert len(fitted(noisy, coreset=0.25).bank) == round(0.25 * total)
    assert len(fitted(noisy, coreset=0.9, threshold=0.5).bank) == total // 2


def test_distances_are_multiplied_by_the_weight_of_the_nearest_patch():
    detector = fitted(parts(4), coreset=0.2)
    detector.lof_weight = torch.rand(len(detector.bank), generator=torch.Generator().manual_seed(0))
    shown = parts(1, seed=5, defective=True)
    apart = torch.cdist(patches(detector, shown).double(), detector.bank.double())
    for squared, power in ((True, 2), (False, 1)):  # the authors' code, and the paper
        detector.squared = squared
        expected = (apart.amin(1) ** power * detector.lof_weight[apart.argmin(1)]).amax()
        assert float(detector.predict(batch(shown)).score) == pytest.approx(float(expected), rel=1e-4)


def test_each_position_has_its_own_gaussian():
    values = torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(0))
    found = softpatch._mahalanobis(values, (2, 3), torch.device("cpu"))
    one = values[:, 4].double()
    inverse = torch.linalg.inv(torch.cov(one.T) + 0.01 * torch.eye(3))
    centred = one - one.mean(0)
    torch.testing.assert_close(
        found[:, 4].double(), ((centred @ inverse) * centred).sum(1).sqrt(), rtol=1e-3, atol=1e-3
    )


def test_nearest_excludes_the_patch_itself():
    groups = torch.tensor([[[0.0], [3.0], [5.0]]])
    assert softpatch._nearest(groups).tolist() == [[3.0, 2.0, 2.0]]
    assert softpatch._nearest(groups[:, :1]).tolist() == [[0.0]]


def test_merging_concatenates_banks_and_weights():
    one, two = fitted(parts(4)), fitted(parts(4, seed=1), coreset=0.2)
    merged = SoftPatch("resnet10t", (1, 2), "none")
    merged.merge([one, two])
    assert len(merged.bank) == len(merged.lof_weight) == len(one.bank) + len(two.bank)


@pytest.mark.parametrize("wrong", [{"coreset": 0.0}, {"threshold": 1.0}, {"discriminator": "x"}, {"neighbours": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="not"):
        SoftPatch("resnet10t", (1, 2), "none", **wrong)


@pytest.mark.slow
def test_real_bottles_with_defective_training_images():
    """The defective ones are tested as well (the paper's overlap setting)."""
    trunk = SHARED / "weights/resnet18_conv1-layer3.pth"
    if not trunk.is_file():
        pytest.skip("the real ResNet-18 and images are not on this machine")
    train, test = bottles(View(128))
    defective = [TrainingImage(e.sample) for e in test.items if e.sample.is_anomaly][::3]
    noisy = Images(train.dataset, [*train.items, *defective], train.view)
    found = []
    for params in ({}, {"threshold": 0.0, "soft": False}):
        detector = SoftPatch("resnet18", weights=str(trunk), **params)
        detector.fit(noisy, np.random.default_rng(0))
        found.append(image_auroc(detector, test))
    soft, plain = found
    assert soft > 0.9
    assert plain < soft - 0.1
