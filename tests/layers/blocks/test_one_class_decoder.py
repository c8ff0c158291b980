import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iadbe.layers.blocks.one_class_decoder import OneClassDecoder, flattened_cosine_loss
from iadbe.networks.backbone import Backbone


def test_the_loss_is_the_cosine_of_flattened_maps():
    generator = torch.Generator().manual_seed(0)
    teacher, student = ([torch.randn(2, c, s, s, generator=generator) for c, s in ((3, 4), (5, 2))] for _ in range(2))
    expected = 0.0
    for t, s in zip(teacher, student, strict=True):
        for a, b in zip(t.double().numpy(), s.double().numpy(), strict=True):
            expected += (1 - (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())) / 2
    assert float(flattened_cosine_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)
    position = sum(1 - F.cosine_similarity(t, s).mean() for t, s in zip(teacher, student, strict=True))
    assert abs(float(position) - expected) > 0.01


def test_layers_are_fused_on_the_grid_of_the_last_which_the_embedding_halves():
    """Each part by itself, against the whole."""
    backbone = Backbone("resnet10t", (1, 2, 3), "none")
    decoder = OneClassDecoder(backbone).eval()
    layers = backbone(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        fused = [down(layer) for down, layer in zip(decoder.fusion, layers, strict=True)]
        assert {f.shape[2:] for f in fused} == {(4, 4)}
        x = decoder.embedding(torch.cat(fused[::-1], 1))
        assert x.shape == (1, 2 * backbone.channels[-1], 2, 2)
        expected = []
        for up in decoder.decoder:
            x = up(x)
            expected.insert(0, x)
        for found, one, layer in zip(decoder(layers), expected, layers, strict=True):
            assert found.shape == layer.shape
            torch.testing.assert_close(found, one)
