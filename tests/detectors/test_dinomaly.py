import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.dinomaly import Dinomaly, hard_mining_loss
from iadbe.errors import BadConfig

VIT = {"backbone": "vit_tiny_patch16_224", "weights": "none", "layers": (2, 3, 4, 5, 6, 7, 8, 9)}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(Dinomaly(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), layers=(1, 2), width=72, batch=8, steps=60)  # a grid of 8 x 8


class TestLoss:
    WANTED, DRAWN = (torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1))

    def gradient(self, easy):
        drawn = self.DRAWN.clone().requires_grad_()
        loss = hard_mining_loss(self.WANTED, drawn, easy)
        loss.backward()
        return loss.detach(), drawn.grad

    def test_it_is_the_cosine_of_whole_maps(self):
        expected = torch.stack(
            [1 - (w * d).sum() / (w.norm() * d.norm()) for w, d in zip(self.WANTED, self.DRAWN, strict=True)]
        ).mean()
        for easy in (0.0, 0.5, 0.9):
            torch.testing.assert_close(self.gradient(easy)[0], expected)

    def test_easy_positions_of_the_batch_pass_a_tenth_of_their_gradient(self):
        _, plain = self.gradient(0.0)
        _, found = self.gradient(0.75)
        error = 1 - F.cosine_similarity(self.WANTED, self.DRAWN)
        hard = error >= error.flatten().sort().values[-18]  # a quarter of 72
        assert int(hard.sum()) == 18
        torch.testing.assert_close(found, plain * torch.where(hard, 1.0, 0.1)[:, None], rtol=1e-4, atol=1e-7)


class TestTransformer:
    def test_the_groups_are_the_means_of_its_blocks(self):
        detector = Dinomaly(**VIT)
        shown = batch(parts(2))
        blocks = detector.backbone(shown)
        assert blocks[0].shape == (2, 192, 4, 4)
        early, late = detector._groups(shown)
        torch.testing.assert_close(early, sum(blocks[:4]) / 4)
        torch.testing.assert_close(late, sum(blocks[4:]) / 4)
        assert detector.dim == 192
        assert not list(detector.scales)
        assert detector.projection.numel() == 0

    def test_the_decoder_starts_from_the_mean_and_its_last_blocks_reconstruct_the_early_layers(self):
        detector = Dinomaly(**VIT, blocks=4)
        detector.decoder.eval()
        entered, outputs = [], []
        detector.decoder.bottleneck.register_forward_pre_hook(lambda module, given: entered.append(given[0]))
        for block in detector.decoder.blocks:
            block.register_forward_hook(lambda module, given, found: outputs.append(found))
        shown = batch(parts(2))
        early, late = detector._reconstructed(detector._groups(shown))
        mean = sum(detector.backbone(shown)) / 8
        torch.testing.assert_close(entered[0], mean.flatten(2).transpose(1, 2))
        torch.testing.assert_close(late.flatten(2).transpose(1, 2), (outputs[0] + outputs[1]) / 2)
        torch.testing.assert_close(early.flatten(2).transpose(1, 2), (outputs[2] + outputs[3]) / 2)

    def test_sizes_are_those_of_the_paper(self):
        detector = Dinomaly(**VIT)
        linear = [m for m in detector.decoder.bottleneck if isinstance(m, nn.Linear)]
        assert [tuple(m.weight.shape) for m in linear] == [(768, 192), (192, 768)]
        assert sum(isinstance(m, nn.Dropout) and m.p == 0.2 for m in detector.decoder.bottleneck) == 3
        assert len(detector.decoder.blocks) == 8
        assert detector.decoder.blocks[0].attention.heads == 3
        assert all(m.weight.abs().max().item() <= 0.03 for m in linear)

    def test_a_view_that_its_patches_do_not_divide_is_resized(self):
        detector, _ = trained(
            images(parts(2)), backbone="vit_small_patch14_dinov2", weights="none", layers=(0, 1), blocks=2, steps=1
        )
        assert detector._groups(batch(parts(1)))[0].shape == (1, 384, 5, 5)
        assert detector.predict(batch(parts(1))).map.shape == (1, 64, 64)

    def test_it_learns(self):
        _, losses = trained(images(parts(4)), **VIT, blocks=2, steps=12)
        assert len(losses) == 12
        assert losses[-1] < 0.6 * losses[0]


class TestOtherNetworks:
    def test_layers_are_scaled_and_can_be_recovered_from_their_sum(self, fitted):
        detector, _ = fitted
        projection = detector.projection  # (24 + 40, 72)
        torch.testing.assert_close(projection @ projection.T, torch.eye(64), rtol=1e-4, atol=1e-5)
        train = batch(parts(16))
        first, second = detector.backbone(train)
        early, late = detector._groups(train)
        assert early.shape == late.shape == (16, 72, 8, 8)
        for scale, layer in zip(detector.scales, (first, second), strict=True):
            assert float(scale(layer).square().mean().sqrt()) == pytest.approx(1, rel=1e-3)
        back = torch.einsum("bdhw,cd->bchw", late + early, projection)  # every layer can be recovered from the sum
        torch.testing.assert_close(back[:, 24:], detector.scales[1](second), rtol=1e-3, atol=1e-3)

    def test_more_channels_than_a_token_has_are_projected_too(self):
        detector, _ = trained(images(parts(2)), backbone="resnet10t", weights="none", width=8, steps=1)
        torch.testing.assert_close(detector.projection.T @ detector.projection, torch.eye(8), rtol=1e-4, atol=1e-5)


def test_it_learns(fitted):
    _, losses = fitted
    assert len(losses) == 60
    assert losses[0] == pytest.approx(1, abs=0.15)
    assert losses[-1] < 0.3


def test_a_dent_is_found_and_shown_where_it_is(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_the_score_is_the_mean_of_the_largest_hundredth(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    found = detector.predict(shown)
    expected = found.map.flatten(1).sort(descending=True).values[:, :40].mean(1)  # of 4096
    torch.testing.assert_close(found.score, expected)
    detector.sigma, sigma = 0.0, detector.sigma
    sharp = detector.predict(shown).map
    detector.sigma = sigma
    weight = torch.exp(-0.5 * (torch.arange(-2, 3) / 4.0) ** 2)
    kernel = torch.outer(weight, weight) / weight.sum() ** 2
    smooth = F.conv2d(sharp[:, None], kernel[None, None])[:, 0]
    torch.testing.assert_close(found.map[:, 2:-2, 2:-2], smooth, rtol=1e-3, atol=1e-5)


def test_the_papers_map_is_reduced_before_it_is_blurred_and_scored(fitted):
    """As in the authors' evaluation: to 256 of 392 pixels, then 5 x 5 blur, then the mean of the largest 1 %."""
    assert Dinomaly.paper_params["map_size"] == 256
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    detector.sigma = 0.0
    sharp = detector.predict(shown).map
    detector.sigma, detector.map_size = 4.0, 40
    found = detector.predict(shown)
    detector.map_size = 0
    reduced = F.interpolate(sharp[:, None], (40, 40), mode="bilinear")
    weight = torch.exp(-0.5 * (torch.arange(-2, 3) / 4.0) ** 2)
    kernel = torch.outer(weight, weight) / weight.sum() ** 2
    blurred = F.conv2d(F.pad(reduced, (2, 2, 2, 2), mode="reflect"), kernel[None, None])
    torch.testing.assert_close(found.score, blurred.flatten(1).sort(descending=True).values[:, :16].mean(1))
    torch.testing.assert_close(found.map, F.interpolate(blurred, (64, 64), mode="bilinear")[:, 0])


def test_dropout_is_off_in_prediction(fitted):
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    expected = detector.predict(shown).score
    detector.train()
    assert torch.equal(detector.predict(shown).score, expected)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 0}, "must all be above 0"),
        ({"blocks": 3}, "an even number of blocks"),
        ({"layers": (2,)}, "at least two layers"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"map_size": -1}, "map_size is a side"),
    ],
)
def test_impossible_parameters_are_refused(wrong, sentence):
    with pytest.raises(BadConfig, match=sentence):
        Dinomaly(**{"backbone": "resnet10t", "weights": "none", **wrong})


@pytest.mark.slow
def test_real_bottles():
    """Thirty steps at 128 pixels with narrow tokens, of the paper's 5000."""
    train, test = bottles(View(128))
    detector, _ = trained(train, steps=30, width=96)
    assert image_auroc(detector, test) > 0.9
