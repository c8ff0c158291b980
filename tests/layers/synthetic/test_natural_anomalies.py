from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from iadbe.layers.synthetic import natural_anomalies
from iadbe.layers.synthetic.natural_anomalies import PatchRules, anomaly_label, natural_anomaly

RULES = PatchRules()


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_images(side=64):
    return tuple(torch.rand(3, side, side, generator=source(seed)) for seed in (8, 9))


def test_it_follows_from_the_generator_and_changes_the_mask_only():
    image, other = drawn_images()
    (one, mask), (two, _), (third, _) = (natural_anomaly(image, other, source(seed), RULES) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, third)
    assert 0.005 < float(mask.float().mean()) < 0.7
    assert torch.equal(one[:, ~mask], image[:, ~mask])
    assert float((one != image).any(0)[mask].float().mean()) > 0.6  # not at the border of each patch


def test_the_number_of_patches_is_drawn():
    """The first always comes, each further one with probability 1/2."""
    image, other = drawn_images()
    rules = PatchRules(patches=3, half_height=(0.06, 0.07), half_width=(0.06, 0.07), resize=(1.0, 1.0))
    counts = []
    for seed in range(60):
        _, mask = natural_anomaly(image, other, source(seed), rules)
        counts.append(int(mask.sum()) / 16)  # patches have 4 x 4 pixels and may overlap
    assert natural_anomalies.FEWEST > 4
    assert max(counts) == 0  # too small for Poisson blending: nothing is put in
    rules = replace(rules, half_height=(0.15, 0.151), half_width=(0.15, 0.151))
    areas = [int(natural_anomaly(image, other, source(seed), rules)[1].sum()) for seed in range(80)]
    single = min(areas)
    assert 0.15 < np.mean([a == single for a in areas]) < 0.35  # one patch: probability 1/4
    assert max(areas) > 2 * single


def test_halves_are_gamma_distributed():
    """0.03 plus a gamma variable of shape 2 and scale 0.05."""
    generator = source()
    drawn = np.array([natural_anomalies._gamma(generator) for _ in range(4000)])
    assert drawn.mean() == pytest.approx(2 * 0.05, rel=0.05)
    assert drawn.var() == pytest.approx(2 * 0.05**2, rel=0.12)
    image = torch.rand(3, 200, 200, generator=source())
    rules = PatchRules(half_height=(0.03, 0.4), half_width=(0.03, 0.1))
    sizes = torch.tensor([natural_anomalies._cut(image, None, generator, rules).pixels.shape[1:] for _ in range(300)])
    assert int(sizes[:, 0].max()) <= 2 * 0.4 * 200
    assert int(sizes[:, 1].max()) == 2 * 0.1 * 200
    assert float(sizes[:, 0].float().median()) == pytest.approx(2 * 200 * 0.114, rel=0.15)  # the median of the gamma


def test_patches_are_cut_from_the_object_and_placed_on_it():
    image, other = drawn_images()
    objects = [torch.zeros(64, 64, dtype=torch.bool) for _ in range(2)]
    objects[0][:, :24] = True
    objects[1][:, 40:] = True
    strict = PatchRules(patches=1, half_height=(0.05, 0.2), half_width=(0.05, 0.2), min_object=0.9, min_overlap=0.9)
    cuts = []
    for seed in range(30):
        patch = natural_anomalies._cut(other, objects[1], source(seed), strict)
        if patch is not None:
            assert float(patch.object.float().mean()) > 0.9
            cuts.append(patch)
        _, mask = natural_anomaly(image, other, source(seed), strict, tuple(objects))
        if mask.any():
            assert float(objects[0][mask].float().mean()) > 0.75
    assert len(cuts) > 20
    nowhere = (objects[0], torch.zeros(64, 64, dtype=torch.bool))
    unchanged, mask = natural_anomaly(image, other, source(), strict, nowhere)
    assert torch.equal(unchanged, image)
    assert not mask.any()


def test_resized_patches_keep_their_proportions_within_the_bounds():
    patch = natural_anomalies._Patch(torch.rand(3, 40, 20, generator=source()), None)
    rules = PatchRules(half_height=(0.03, 0.4), half_width=(0.03, 0.4), resize=(0.5, 2.0))
    sizes = {
        tuple(natural_anomalies._resized(patch, torch.Size((200, 200)), source(s), rules).pixels.shape)
        for s in range(60)
    }
    heights = [h for _, h, _ in sizes]
    assert min(heights) == 20
    assert 60 < max(heights) <= 80
    assert all(abs(h / w - 2) < 0.25 for _, h, w in sizes)


def test_labels_are_medians_of_the_change():
    """By SciPy's median filters, on levels of 0 to 255."""
    before = torch.rand(3, 40, 50, generator=source())
    after = (before + 0.2 * torch.rand(3, 40, 50, generator=source(1))).clamp(0, 1)
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[5:30, 8:30] = True
    after[:, 10:14, 10:14] = before[:, 10:14, 10:14]  # nothing changed here
    label, levels = anomaly_label(before, after, mask)
    change = 255 * (after - before).abs().mean(0).numpy()
    expected = ndimage.median_filter(((change > 1) & mask.numpy()).astype(np.uint8), 5, mode="nearest").astype(bool)
    assert np.array_equal(label.numpy(), expected)
    assert not label[11, 11]
    assert label[20, 20]
    disk = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
    median = ndimage.median_filter(np.where(expected, change, 0), footprint=disk, mode="nearest")
    np.testing.assert_allclose(levels.numpy(), median, atol=1e-4)
    nothing = anomaly_label(before, before, mask)
    assert not nothing[0].any()
    assert not nothing[1].any()
