import pytest
import torch
from torch import nn

from iadbe.errors import BadConfig
from iadbe.layers.blocks.dcgan import initialise, strided_encoder, transposed_decoder


@pytest.mark.parametrize(("size", "layers"), [(16, 3), (32, 4), (256, 7)])
def test_encoder_and_decoder_mirror_one_another(size, layers):
    down, up = strided_encoder(size, 4, 7), transposed_decoder(size, 4, 7)
    there = [m for m in down if isinstance(m, nn.Conv2d)]
    back = [m for m in up if isinstance(m, nn.ConvTranspose2d)]
    assert len(there) == len(back) == layers
    assert [m.in_channels for m in there] == [m.out_channels for m in back][::-1]
    assert [m.out_channels for m in there[:-1]] == [4 * 2**i for i in range(layers - 1)]
    assert all(m.bias is None for m in [*there, *back])
    code = down(torch.rand(2, 3, size, size))
    assert code.shape == (2, 7, 1, 1)
    image = up(code * 100)
    assert image.shape == (2, 3, size, size)
    assert image.abs().max().item() <= 1


def test_norms_and_activations_are_a_dcgans():
    """No norm next to the image or the code; leaky rectifiers going down, plain ones going up, tanh at the end."""
    conv, norm, leaky = nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU
    assert [type(m) for m in strided_encoder(32, 4, 7)] == [conv, leaky, *[conv, norm, leaky] * 2, conv]
    conv, relu = nn.ConvTranspose2d, nn.ReLU
    assert [type(m) for m in transposed_decoder(32, 4, 7)] == [conv, *[norm, relu, conv] * 3, nn.Tanh]
    assert strided_encoder(32, 4, 7)[1].negative_slope == 0.2


def test_weights_are_drawn_as_the_paper_says_and_again_from_a_generator():
    network = strided_encoder(64, 32, 8)
    initialise(network, torch.Generator().manual_seed(0))
    first, norm = network[2].weight.clone(), network[6]
    assert first.mean().item() == pytest.approx(0, abs=1e-3)
    assert first.std().item() == pytest.approx(0.02, rel=0.05)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not norm.bias.any()
    initialise(network, torch.Generator().manual_seed(0))
    assert torch.equal(network[2].weight, first)
    initialise(network)
    assert not torch.equal(network[2].weight, first)


@pytest.mark.parametrize("make", [strided_encoder, transposed_decoder])
def test_other_sizes_are_refused(make):
    with pytest.raises(BadConfig, match="size is 16, 32, 64, 128 or 256, not 48"):
        make(48, 4, 4)
