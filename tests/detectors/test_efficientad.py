import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import fitted_losses
from drawn_images import assert_dents_are_found, batch, images, parts
from iadbe import progress
from iadbe.data.images import Batch, View
from iadbe.detectors.efficientad import EfficientAD, _Autoencoder, _PenaltyImages, hard_feature_loss
from iadbe.errors import BadConfig

QUICK = {"weights": "none", "width": 24}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(EfficientAD(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(20)), steps=200, learning_rate=2e-3, **QUICK)


def test_the_hard_feature_loss_is_the_mean_from_the_quantile_on():
    for count in (999, 1000, 1001, 12_345):
        squares = torch.rand(1, count, generator=torch.Generator().manual_seed(count))
        expected = squares[squares >= torch.quantile(squares, 0.999)].mean()
        torch.testing.assert_close(hard_feature_loss(squares), expected)


def test_the_loss_is_the_papers_sum():
    """Teacher, penalty and both terms of the autoencoder, each by a pass of its own over the whole student."""
    detector = EfficientAD(**QUICK)
    detector.scale_mean += 0.1
    detector.scale_deviation *= 0.5
    source = torch.Generator().manual_seed(0)
    image, outside, changed = (torch.rand(2, 3, 64, 64, generator=source) for _ in range(3))
    detector.autoencoder = _Autoencoder(24, (64, 64))
    described = (detector.teacher(image) - 0.1) / 0.5
    found = detector._loss(Batch(image), described, outside, changed, torch.Generator().manual_seed(7))
    squares = (described - detector.student(image)[:, :24]) ** 2
    hard = squares[squares >= torch.quantile(squares, 0.999)].mean()
    penalty = (detector.student(outside)[:, :24] ** 2).mean()
    target = (detector.teacher(changed) - 0.1) / 0.5
    reconstruction = detector.autoencoder(changed, (8, 8), torch.Generator().manual_seed(7))
    by_student = ((reconstruction - detector.student(changed)[:, 24:]) ** 2).mean()
    expected = hard + penalty + ((target - reconstruction) ** 2).mean() + by_student
    torch.testing.assert_close(found, expected)


def test_the_autoencoder_of_256_pixels_is_the_papers():
    """Grids, kernels and paddings, as a plain sequence with the same weights."""
    torch.manual_seed(0)
    ours = _Autoencoder(384, (256, 256))
    layers = []
    for convolution in ours.encoder:
        layers += [convolution, nn.ReLU()]
    layers.append(ours.code)
    for convolution, side in zip(ours.decoder, (3, 8, 15, 32, 63, 127), strict=True):
        layers += [nn.Upsample(side, mode="bilinear"), convolution, nn.ReLU()]
    layers += [nn.Upsample(56, mode="bilinear"), ours.last[0], nn.ReLU(), ours.last[1]]
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    shown = (image - ours.mean) / ours.std
    with torch.no_grad():
        torch.testing.assert_close(ours(image, (56, 56)), nn.Sequential(*layers)(shown))
        assert nn.Sequential(*layers[:11])(shown).shape == (1, 64, 1, 1)
    assert [c.kernel_size[0] for c in (*ours.encoder, ours.code)] == [4, 4, 4, 4, 4, 8]


def test_dropout_follows_from_its_generator_and_keeps_the_mean():
    network = _Autoencoder(8, (64, 64))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, same, other = (network(image, (8, 8), torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    many = torch.stack([network(image, (8, 8), torch.Generator().manual_seed(s)) for s in range(60)]).mean(0)
    plain = network(image, (8, 8))
    one, many, plain = (x.detach() for x in (one, many, plain))
    assert float((many - plain).abs().mean()) < 0.5 * float((one - plain).abs().mean())


def test_the_map_is_the_mean_of_both_scaled_maps(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=5, defective=True))
    with torch.no_grad():
        described = (detector.teacher(shown.image) - detector.scale_mean) / detector.scale_deviation
        student = detector.student(shown.image)
        code = detector.autoencoder(shown.image, (8, 8))
    maps = [((described - student[:, :24]) ** 2).mean(1), ((code - student[:, 24:]) ** 2).mean(1)]
    scaled = [0.1 * (m - q[0]) / (q[1] - q[0]) for m, q in zip(maps, detector.quantiles, strict=True)]
    whole = F.pad((scaled[0] + scaled[1]) / 2, (4, 4, 4, 4))
    expected = F.interpolate(whole[:, None], (64, 64), mode="bilinear")[:, 0]
    found = detector.predict(shown)
    torch.testing.assert_close(found.map, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.score, found.map.amax((1, 2)))


def test_scale_and_quantiles_are_those_of_the_two_sides_of_the_split(fitted):
    detector, _ = fitted
    rest, held_out = images(parts(20)).split(0.1, np.random.default_rng(0))
    assert (len(rest), len(held_out)) == (18, 2)
    with torch.no_grad():
        values = torch.cat([detector.teacher(b.image) for b in rest.batches()])
        maps = torch.cat([detector._maps(b.image) for b in held_out.batches()])
    torch.testing.assert_close(detector.scale_mean, values.mean((0, 2, 3), keepdim=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        detector.scale_deviation, values.std((0, 2, 3), unbiased=False, keepdim=True), rtol=1e-4, atol=1e-5
    )
    for number in range(2):
        expected = torch.quantile(maps[:, number], torch.tensor([0.9, 0.995]))
        torch.testing.assert_close(detector.quantiles[number], expected, rtol=1e-4, atol=1e-6)


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 200
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_penalty_images_are_drawn_or_the_centres_of_a_folders(tmp_path):
    drawn = _PenaltyImages("", (40, 40))
    one, same = (drawn(8, torch.Generator().manual_seed(s)) for s in (0, 0))
    assert torch.equal(one, same)
    assert one.shape == (8, 3, 40, 40)
    pixels = np.zeros((80, 80, 3), np.uint8)
    pixels[20:60, 20:60] = (200, 100, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = _PenaltyImages(str(tmp_path), (40, 40))(200, torch.Generator().manual_seed(0))
    coloured = torch.tensor([200, 100, 0]).view(1, 3, 1, 1) / 255
    is_coloured = (found == coloured).flatten(1).all(1)
    is_grey = (found[:, :1] == found).flatten(1).all(1)
    assert (is_coloured ^ is_grey).all()
    assert 0.2 < float(is_grey.float().mean()) < 0.4
    torch.testing.assert_close(found[is_grey].mean(), (coloured.flatten() @ torch.tensor([0.299, 0.587, 0.114])))
    with pytest.raises(BadConfig, match="there is no image in"):
        _PenaltyImages(str(tmp_path / "none"), 40)


def test_results_say_which_teacher_and_which_penalty_images_there_were(tmp_path):
    said = EfficientAD(**QUICK).weights()
    assert said.startswith("pdn_s: ")
    assert said.endswith("from random (weights=none)")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for folder, expected in (("", ["the penalty images were drawn textures"]), (str(tmp_path), [])):
        notes = []
        with progress.collecting_notes(notes):
            trained(images(parts(2)), penalty=folder, steps=1, **QUICK)
        assert [note.partition(";")[0] for note in notes] == expected


def test_medium_trains_too():
    detector, losses = trained(images(parts(6)), model_size="M", steps=30, learning_rate=1e-3, **QUICK)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert detector.predict(batch(parts(2))).map.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"width": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must be above 0"):
        EfficientAD(**{**QUICK, **wrong})


def test_a_view_smaller_than_a_patch_is_refused():
    with pytest.raises(BadConfig, match="at least 37 pixels, not 32"):
        EfficientAD(**QUICK).fit(images(parts(2), View(32)), np.random.default_rng(0))
