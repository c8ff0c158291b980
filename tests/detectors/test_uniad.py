import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.uniad import UniAD
from iadbe.errors import BadConfig
from iadbe.layers.blocks.attention import neighbour_mask

QUICK = {"width": 32, "heads": 4, "learning_rate": 1e-3}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(UniAD(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=60, layers=(0, 1, 2))  # a grid of 8 x 8


def test_a_position_does_not_depend_on_its_neighbourhood():
    """One block each, without the encoder's attention: the decoder's output depends on distant positions only."""
    detector = UniAD("resnet10t", (1, 2), "none", blocks=1, **{k: QUICK[k] for k in ("width", "heads")})
    network = detector._untrained(9, 9).eval()
    nn.init.zeros_(network.encoder[0].attention[0].out.weight)
    tokens = torch.randn(1, 81, sum(detector.backbone.channels), generator=torch.Generator().manual_seed(0))
    tokens.requires_grad_()
    network(tokens, 9, 9)[0, 40].square().sum().backward()
    seen = tokens.grad[0].abs().sum(1) > 0
    assert torch.equal(seen, ~neighbour_mask(9, 9, 7)[40])


def test_every_decoder_block_has_its_own_queries():
    detector = UniAD("resnet10t", (1, 2), "none", width=8, blocks=3)
    network = detector._untrained(4, 4).eval()
    assert [tuple(q.shape) for q in network.queries] == [(16, 8)] * 3
    tokens = torch.randn(1, 16, sum(detector.backbone.channels), generator=torch.Generator().manual_seed(0))
    network(tokens, 4, 4).square().sum().backward()
    assert all(float(q.grad.abs().sum()) > 0 for q in network.queries)


@torch.no_grad()
def test_initial_weights_are_those_of_the_authors_code():
    """Attention as torch.nn.MultiheadAttention, other layers with Xavier's weights and biases of 0."""
    torch.manual_seed(0)
    network = UniAD("resnet10t", (1, 2), "none", width=64, heads=4)._untrained(4, 4)
    theirs = nn.MultiheadAttention(64, 4)
    for layer in (block.attention[0] for block in (*network.encoder, *network.decoder)):
        for part in (layer.query, layer.key, layer.value):
            assert float(part.weight.std()) == pytest.approx(float(theirs.in_proj_weight.std()), rel=0.05)
            assert float(part.weight.abs().max()) <= (6 / (4 * 64)) ** 0.5
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) > 40
    assert all(float(layer.bias.abs().max()) == 0 for layer in linear)
    assert float(network.input_projection.weight.std()) == pytest.approx(
        (2 / sum(network.input_projection.weight.shape)) ** 0.5, rel=0.05
    )


def test_the_papers_features_have_272_channels():
    backbone = UniAD(**{**UniAD.paper_params, "weights": "none"}).backbone
    assert backbone.channels == (24, 32, 56, 160)
    assert backbone.name == "tf_efficientnet_b4.aa_in1k"


def test_a_transformers_patches_need_not_divide_the_view():
    detector, _ = trained(images(parts(2, side=70)), backbone="test_vit", layers=(1, 3), weights="none", epochs=1)
    assert detector.predict(batch(parts(1, side=70))).map.shape == (1, 70, 70)


def test_positions_have_different_embeddings():
    """Equal tokens get different outputs: rows and columns have embeddings."""
    network = UniAD("resnet10t", (1, 2), "none", width=8)._untrained(4, 4).eval()
    found = network(torch.ones(1, 16, network.input_projection.in_features), 4, 4)[0]
    assert torch.cdist(found, found).add(torch.eye(16)).min() > 1e-4


def test_the_noise_is_proportional_to_each_tokens_norm(monkeypatch):
    """Its standard deviation is 20 times the token's norm divided by its dimensions."""
    norms = []

    def fake_noise(tokens):
        norms.append(tokens.norm(dim=2))
        return torch.ones_like(tokens)

    monkeypatch.setattr(torch, "randn_like", fake_noise)
    seen = []
    detector = UniAD("resnet10t", (1, 2), "none", width=8, epochs=1)
    untrained = detector._untrained

    def recorded(height, width):
        network = untrained(height, width)
        network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        return network

    monkeypatch.setattr(detector, "_untrained", recorded)
    train = images(parts(1))
    detector.fit(train, np.random.default_rng(0))
    clean = detector.level(detector._features(next(train.batches(1)))).flatten(2).transpose(1, 2)
    expected = 20 * norms[0][..., None] / clean.shape[2]
    torch.testing.assert_close(seen[0] - clean, expected.expand_as(clean), rtol=1e-3, atol=1e-4)


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 60 * 2
    assert np.mean(losses[-8:]) < 0.6 * np.mean(losses[:4])


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector, shown=6)


def test_the_score_is_the_largest_mean_over_16_x_16_pixels(fitted):
    detector, _ = fitted
    found = detector.predict(batch(parts(2, seed=3, defective=True)))
    squares = F.unfold(found.map[:, None], 16).mean(1)
    torch.testing.assert_close(found.score, squares.amax(1))


def test_dropout_and_noise_are_off_in_predict(fitted):
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    expected = detector.predict(shown).score
    detector.train()
    assert torch.equal(detector.predict(shown).score, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "must all be above 0"),
        ({"width": 20, "heads": 8}, "not an even multiple of 8 heads"),
        ({"neighbourhood": 4}, "neighbourhood is odd, or 0, not 4"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(BadConfig, match=message):
        UniAD("resnet10t", (1, 2), "none", **wrong)


@pytest.mark.slow
def test_real_bottles():
    """Eight epochs at 128 pixels with a narrow transformer and a higher rate, of the paper's thousand."""
    train, test = bottles(View(128))
    detector, _ = trained(train, epochs=8)
    assert image_auroc(detector, test) > 0.8
