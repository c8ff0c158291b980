from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors import memseg
from iadbe.detectors.memseg import MemSeg, nearest_differences, segmentation_loss
from iadbe.errors import BadConfig

TRUNK = Path(__file__).parents[3] / "shared/weights/resnet18_conv1-layer3.pth"
SMALL = {"backbone": "resnet10t", "weights": "none", "width": 8, "batch": 4, "steps": 3}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=source(seed))


@pytest.fixture(scope="module")
def fitted():
    """A detector trained on drawn parts, and the loss of every step."""
    losses, detector = [], MemSeg(steps=60, width=16, memory=10)
    with progress.listening(lambda report: losses.append(report.value) if report.phase == "loss" else None):
        detector.fit(images(parts(16)), np.random.default_rng(0))
    return detector, losses


def test_the_difference_is_from_the_image_that_is_nearest_over_all_layers():
    layers = [drawn(3, 4, 6, 6), drawn(3, 5, 3, 3, seed=1)]
    memory = [drawn(7, 4, 6, 6, seed=2), drawn(7, 5, 3, 3, seed=3)]
    found = nearest_differences(layers, memory)
    for b in range(3):
        means = [sum(float(((f[b] - m[n]) ** 2).mean()) for f, m in zip(layers, memory, strict=True)) for n in range(7)]
        nearest = int(np.argmin(means))
        for difference, layer, remembered in zip(found, layers, memory, strict=True):
            torch.testing.assert_close(difference[b], (layer[b] - remembered[nearest]) ** 2)


def test_the_loss_is_the_weighted_sum_of_l1_and_focal_loss():
    logits, mask = torch.randn(2, 3, 4, generator=source()), drawn(2, 3, 4, seed=1) > 0.5
    total = 0.0
    for x, y in zip(logits.flatten().tolist(), mask.flatten().tolist(), strict=True):
        p = 1 / (1 + np.exp(-x))
        right = p if y else 1 - p
        total += 0.6 * abs(p - y) + 0.4 * -((1 - right) ** 4) * np.log(right)
    assert float(segmentation_loss(logits, mask)) == pytest.approx(total / 24, rel=1e-5)


def test_fused_layers_are_weighted_by_the_differences_of_their_own_and_coarser_layers():
    """The equations of sections 3.4 and 3.5, written out for three layers."""
    torch.manual_seed(0)
    fusion = memseg._Fusion([2, 3, 4]).eval()
    layers = [drawn(2, c, s, s, seed=c) for c, s in ((2, 12), (3, 6), (4, 3))]
    differences = [drawn(*f.shape, seed=9) for f in layers]

    def doubled(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    mixed = []
    for k in range(3):
        x = torch.cat([layers[k], differences[k]], 1)
        mixed.append(fusion.reducing[k](fusion.mixing[k](x) * fusion.attention[k](x)))
    second = mixed[1] + fusion.finer[1](doubled(mixed[2]))
    first = mixed[0] + fusion.finer[0](doubled(second))
    m3 = differences[2].mean(1, keepdim=True)
    m2 = differences[1].mean(1, keepdim=True) * doubled(m3)
    m1 = differences[0].mean(1, keepdim=True) * doubled(m2)
    for found, expected in zip(fusion(layers, differences), (first * m1, second * m2, mixed[2] * m3), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_decoder_puts_each_scale_beside_the_doubled_coarser_one():
    torch.manual_seed(0)
    decoder = memseg._Decoder([2, 3, 4, 5], 6).eval()  # stem, two layers, the last stage
    stem, first, second, last = (drawn(1, c, s, s, seed=c) for c, s in ((2, 16), (3, 8), (4, 4), (5, 2)))

    def doubled(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    x = torch.cat([decoder.up[0](doubled(last)), second], 1)
    x = torch.cat([decoder.up[1](doubled(x)), first], 1)
    x = torch.cat([decoder.up[2](doubled(x)), decoder.stem(stem)], 1)
    expected = decoder.last(decoder.full(doubled(x)))
    torch.testing.assert_close(decoder([stem, first, second, last], (32, 32)), expected)


def test_the_memory_holds_layers_of_different_training_images():
    detector, train = MemSeg(**SMALL, memory=3), images(parts(8))
    detector.fit(train, np.random.default_rng(0))
    every = detector.backbone(next(train.batches(8)))[1:]
    of = []
    for number, layer in enumerate(every):
        memory = getattr(detector, f"memory{number}")
        assert memory.shape == (3, *layer.shape[1:])
        of.append([min(range(8), key=lambda n: float((layer[n] - m).abs().max())) for m in memory])
    assert of[0] == of[1] == of[2]
    assert len(set(of[0])) == 3
    detector.memory = 30
    detector.fit(train, np.random.default_rng(0))
    assert len(detector.memory0) == 8  # no more than there are


def test_half_of_a_step_has_defects():
    detector, seen = MemSeg(**SMALL), []
    detector._logits = lambda features, size: (
        seen.append(len(features[0])) or sum(p.sum() for p in detector.decoder.parameters()) * torch.ones(4, *size)
    )
    masks = []
    plain = detector._with_defects
    detector._with_defects = lambda image, generator: masks.append(len(image)) or plain(image, generator)
    detector.fit(images(parts(6)), np.random.default_rng(0))
    assert seen == [4, 4, 4]  # the second batch of an epoch has two images only
    assert masks == [2, 2, 2]


def test_defects_lie_in_the_foreground_if_one_is_chosen():
    image = torch.zeros(12, 3, 32, 32)
    image[:, :, :, 16:] = torch.tensor([1.0, 0.6, 0.2]).view(3, 1, 1)  # a luma of 0.674: 172 grey levels
    for foreground, level, left, right in (
        ("everything", 100, True, True),
        ("darker", 171, True, False),
        ("darker", 173, True, True),
        ("brighter", 171, False, True),
        ("brighter", 173, False, False),
    ):
        detector = MemSeg(**SMALL, foreground=foreground, level=level)
        changed, mask = detector._with_defects(image, source())
        assert bool(mask[:, :, :16].any()) is left
        assert bool(mask[:, :, 16:].any()) is right
        assert not (changed != image).any(1)[~mask].any()


def test_the_trained_stage_starts_with_the_weights_of_the_backbone_and_every_fit_anew():
    detector = MemSeg(**{**SMALL, "steps": 2})
    start = [p.detach().clone() for p in detector.initial.parameters()]
    detector.fit(images(parts(4)), np.random.default_rng(0))
    once = [p.detach().clone() for p in detector.stage.parameters()]
    assert not torch.equal(once[0], start[0])
    assert float((once[0] - start[0]).norm()) < 0.5 * float(start[0].norm())  # it began there
    assert all(torch.equal(a, b) for a, b in zip(start, detector.initial.parameters(), strict=True))
    detector.fit(images(parts(4)), np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(once, detector.stage.parameters(), strict=True))


def test_a_file_that_ends_with_the_last_layer_needs_an_untrained_stage():
    if not TRUNK.is_file():
        pytest.skip("needs ../shared/weights")
    params = {"backbone": "resnet18.tv_in1k", "weights": str(TRUNK), "width": 8, "steps": 1, "batch": 2}
    with pytest.raises(BadConfig, match="lacks"):
        MemSeg(**params)
    detector = MemSeg(**params, stage="untrained")
    detector.fit(images(parts(2)), np.random.default_rng(0))
    assert torch.isfinite(detector.predict(batch(parts(2))).score).all()


def test_training_lowers_the_loss_and_a_dent_is_found(fitted):
    detector, losses = fitted
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert float((bad.score[:, None] > good.score).float().mean()) > 0.9
    dent = torch.stack([torch.from_numpy(pixels.max(2) < 40) for pixels in dented])
    assert float((bad.map[dent][:, None] > bad.map[~dent][None, ::50]).float().mean()) > 0.9


def test_the_score_is_the_mean_of_the_highest_pixels(fitted):
    detector, _ = fitted
    found = detector.predict(batch(parts(3, defective=True)))
    expected = [sorted(one.flatten().tolist())[-100:] for one in found.map]
    torch.testing.assert_close(found.score, torch.tensor(expected).mean(1))
    assert 0 <= float(found.map.min()) <= float(found.map.max()) <= 1


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"memory": 0}, "above 0"),
        ({"batch": 1}, "batch at least 2"),
        ({"layers": (1, 3)}, "one after the other"),
        ({"layers": (0, 1)}, "from 1 on"),
        ({"foreground": "inside"}, "foreground is"),
        ({"stage": "trained"}, "stage is"),
    ],
)
def test_impossible_parameters_are_refused(params, words):
    with pytest.raises(BadConfig, match=words):
        MemSeg(**{**SMALL, **params})
