import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.subspacead import SubspaceAD, _StreamingPCA
from iadbe.errors import BadConfig
from iadbe.layers.statistics.pca import pca
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore

TINY = {"backbone": "test_vit", "layers": (1, 3, 5), "weights": "none"}


def fitted(train, seed=0, **params):
    detector = SubspaceAD(**params)
    detector.fit(images(train), np.random.default_rng(seed))
    return detector


def rows(detector, shown):
    return detector._patches(shown).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


@pytest.mark.parametrize("params", [TINY, {"weights": "none"}])
def test_the_score_is_the_squared_residual_of_an_svd(params):
    detector = fitted(parts(6), **params, copies=0, variance=0.9, sigma=0)
    known, new = rows(detector, batch(parts(6))), rows(detector, batch(parts(2, seed=1)))
    mean = known.mean(0)
    _, singular, axes = np.linalg.svd(known - mean, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(singular**2) / np.sum(singular**2), 0.9)) + 1
    assert len(detector.axes) == kept
    again = (new - mean) @ axes[:kept].T @ axes[:kept] + mean
    expected = ((new - again) ** 2).sum(1).reshape(2, 4, 4)
    found = detector.predict(batch(parts(2, seed=1)))
    np.testing.assert_allclose(found.score, expected.max((1, 2)), rtol=1e-3)  # 1 % of 16 patches is one
    grid = F.interpolate(torch.from_numpy(expected)[:, None], (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.map.double(), grid, rtol=1e-2, atol=1e-2 * float(grid.max()))


def test_the_paper_protocol_scores_the_largest_pixels_of_a_map_smoothed_over_3_x_3():
    choice = {key: SubspaceAD.paper_params[key] for key in ("top", "radius")}
    detector = fitted(parts(6), **TINY, copies=0, **choice)
    shown = batch(parts(2, seed=1, defective=True))
    found = detector.predict(shown)
    detector.sigma = 0
    plain = detector.predict(shown).map
    line = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / (2 * 4**2))
    window = line.outer(line) / line.sum() ** 2
    expected = F.conv2d(F.pad(plain[:, None], [1] * 4, "reflect"), window[None, None])[:, 0]
    torch.testing.assert_close(found.map, expected, rtol=1e-4, atol=1e-6)
    largest = expected.flatten(1).sort(1, descending=True).values[:, : 64 * 64 // 100]
    torch.testing.assert_close(found.score, largest.mean(1), rtol=1e-4, atol=1e-6)


def test_batches_give_the_pca_of_all_rows():
    """Far from the origin, where sums of squares would cancel, with batches of different sizes."""
    source = torch.Generator().manual_seed(0)
    table = torch.randn(500, 9, generator=source) * torch.arange(1, 10) + 1e4
    streaming = _StreamingPCA()
    for part in table.split([1, 200, 7, 292]):
        streaming.add(part)
    found, expected = streaming.principal(0.95), pca(table, 0.95)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.axes.T @ found.axes, expected.axes.T @ expected.axes, rtol=0, atol=1e-4)


def test_equal_patches_have_no_components():
    streaming = _StreamingPCA()
    streaming.add(torch.ones(10, 4))
    assert streaming.principal(0.99).axes.shape == (0, 4)


def test_blocks_are_averaged():
    detector = SubspaceAD(**TINY)
    singly = [SubspaceAD(**{**TINY, "layers": (k,)})._patches(batch(parts(1))) for k in (1, 3, 5)]
    torch.testing.assert_close(detector._patches(batch(parts(1))), sum(singly) / 3)


def test_layers_of_different_shape_have_no_average():
    with pytest.raises(BadConfig, match="no average"):
        SubspaceAD(layers=(2, 3), weights="none")


def test_rotated_copies_reduce_the_score_of_rotated_parts():
    """A bar is normal in all directions after rotations at random."""
    bar = np.zeros((64, 64, 3), np.uint8)
    bar[28:36, 8:56] = 200
    rotated = [np.ascontiguousarray(np.rot90(bar))]
    alone, copied = (fitted([bar], **TINY, copies=n, variance=0.9) for n in (0, 30))
    error = [float(d.predict(batch(rotated)).score / d.predict(batch([bar])).score) for d in (alone, copied)]
    assert error[1] < 0.5 * error[0]
    assert len(copied.axes) > len(alone.axes)


def test_copies_are_made_of_up_to_16_images(tmp_path):
    for count, seen in ((16, 16 * 4), (17, 17)):
        with feature_store.using(FeatureStore(tmp_path / str(count))) as counters:
            fitted(parts(count), **TINY, copies=3)
        assert counters.computed == seen


def test_the_copies_depend_on_the_seed():
    one, two, other = (fitted(parts(1), seed, **TINY, copies=2).mean for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("wrong", [{"copies": -1}, {"variance": 0}, {"variance": 1.5}, {"radius": -1}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=f"{next(iter(wrong))} is"):
        SubspaceAD(weights="none", **wrong)


@pytest.mark.slow
def test_four_real_bottles_are_enough():
    train, test = bottles(View(256))
    detector = SubspaceAD()
    detector.fit(train.subset(range(4)), np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.93
