import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.anomalydino import AnomalyDINO, foreground, is_reliable, otsu
from iadbe.errors import BadConfig
from iadbe.layers.features.views import rotated
from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex

TINY = {"backbone": "test_vit", "layer": 3, "weights": "none"}


def fitted(train, **params):
    detector = AnomalyDINO(**params)
    detector.fit(images(train), np.random.default_rng(0))
    return detector


def disc(side=16, radius=0.3, centre=(0.5, 0.5)):
    y, x = np.mgrid[:side, :side] / (side - 1)
    return torch.from_numpy(np.hypot(y - centre[0], x - centre[1]) < radius)


def with_object(mask, channels=6, seed=0):
    """Return noise around one vector in the background and around another on the object: (1, C, h, w)."""
    source = torch.Generator().manual_seed(seed)
    two = torch.randn(2, channels, generator=source)
    noise = 0.05 * torch.randn(1, channels, *mask.shape, generator=source)
    return torch.where(mask, two[0][:, None, None], two[1][:, None, None]) + noise


@pytest.mark.parametrize("params", [TINY, {"weights": "none"}])
def test_scores_are_cosine_distances_to_the_nearest_patch(params):
    detector = fitted(parts(2), **params, masking="never", rotations=2, sigma=0)
    seen = [detector._patches(rotated(batch(parts(2)), angle)) for angle in (0, 180)]
    bank = torch.cat([f.permute(0, 2, 3, 1).flatten(0, 2) for f in seen]).double()
    shown = batch(parts(2, seed=1))
    patches = detector._patches(shown).permute(0, 2, 3, 1).flatten(1, 2).double()
    cosine = F.normalize(patches, dim=-1) @ F.normalize(bank, dim=-1).T
    distance = (1 - cosine).amin(-1)  # (2, P)
    found = detector.predict(shown)
    torch.testing.assert_close(found.score.double(), distance.amax(1), rtol=1e-3, atol=1e-6)  # 1 % of 16 is one
    side = int(distance.shape[1] ** 0.5)
    grid = F.interpolate(distance.view(2, 1, side, side), (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.map.double(), grid, rtol=1e-3, atol=1e-6)


def test_the_image_score_is_the_mean_of_the_largest_hundredth():
    detector = fitted(parts(1), weights="none", layer=1, masking="never", sigma=0, rotations=1)
    shown = batch(parts(1, seed=2, defective=True))
    distance = NeighbourIndex(detector.bank).nearest(F.normalize(detector._patches(shown), dim=1)[0].flatten(1).T)[0]
    top = (distance[:, 0].square() / 2).sort().values[-2:]  # of 16 x 16 patches
    torch.testing.assert_close(detector.predict(shown).score[0], top.mean())


def test_a_rotated_part_is_normal_only_with_rotated_references():
    arrow = np.zeros((64, 64, 3), np.uint8)
    arrow[28:36, 8:56] = arrow[8:36, 44:56] = 200
    turned = np.ascontiguousarray(np.rot90(arrow))
    without, with_ = (fitted([arrow], **TINY, rotations=n, masking="never") for n in (1, 4))
    assert with_.predict(batch([turned])).score < 1e-4 < 1e-2 < without.predict(batch([turned])).score
    assert len(with_.bank) == 4 * len(without.bank)


def test_otsu_separates_two_groups():
    values = torch.tensor([[0.0, 0.1, 0.2, 5.0, 5.2], [9.0, 1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(otsu(values), torch.tensor([2.6, 5.0]))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_object_in_the_centre_is_foreground(sign):
    """For either sign of the component. The mask is dilated by one patch, and a hole in it is closed."""
    inside = disc()
    holed = inside.clone()
    holed[8, 8] = False
    mask = foreground(sign * with_object(holed))
    dilated = F.max_pool2d(inside.float()[None, None], 3, 1, 1)[0, 0] > 0
    assert mask[0][inside].all()
    assert not mask[0][~dilated].any()
    assert is_reliable(mask)


def test_masks_without_an_object_in_the_centre_are_not_reliable():
    half = torch.zeros(1, 16, 16, dtype=torch.bool)
    half[..., :8] = True
    corner = disc(centre=(0, 0))[None]
    assert not is_reliable(half)
    assert not is_reliable(corner)
    assert is_reliable(disc()[None])
    assert not is_reliable(torch.cat([disc()[None], half]))  # one bad reference is enough


def test_background_patches_score_only_without_masking(monkeypatch):
    known, new = with_object(disc()), with_object(disc())
    new[..., 0, 0] = -new[..., 0, 0]  # an anomaly in the corner of the background
    shown = batch(parts(1))
    scores = {}
    for masking in ("always", "never"):
        detector = AnomalyDINO(weights="none", masking=masking, rotations=1, sigma=0)
        monkeypatch.setattr(detector, "_patches", lambda _: known)
        detector.fit(images(parts(1)), np.random.default_rng(0))
        monkeypatch.setattr(detector, "_patches", lambda _: new)
        scores[masking] = float(detector.predict(shown).score)
        assert len(detector.bank) == 256  # references are not masked
    assert scores["always"] < 0.05 < 0.5 < scores["never"]


def test_auto_masks_where_the_references_show_an_object(monkeypatch):
    for patches, expected in ((with_object(disc()), True), (torch.randn(1, 6, 16, 16), False)):
        detector = AnomalyDINO(weights="none", rotations=1)
        monkeypatch.setattr(detector, "_patches", lambda _, p=patches: p)
        detector.fit(images(parts(1)), np.random.default_rng(0))
        assert bool(detector.masked) is expected


def test_tokens_are_normalised_as_the_last_norm_does():
    patches = AnomalyDINO(**TINY)._patches(batch(parts(1)))
    torch.testing.assert_close(patches.mean(1), torch.zeros(1, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.var(1, correction=0), torch.ones(1, 4, 4), atol=1e-2, rtol=0)


@pytest.mark.parametrize("wrong", [{"rotations": 0}, {"masking": "sometimes"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=f"{next(iter(wrong))} is"):
        AnomalyDINO(weights="none", **wrong)


@pytest.mark.slow
def test_four_real_bottles_are_enough():
    train, test = bottles(View(256))
    detector = AnomalyDINO()
    detector.fit(train.subset(range(4)), np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.98
