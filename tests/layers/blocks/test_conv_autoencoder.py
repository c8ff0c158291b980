import pytest
import torch
from torch import nn

from iadbe.errors import BadConfig
from iadbe.layers.blocks.conv_autoencoder import decoder, encoder

WIDE = (128, 256, 256, 512, 512, 512, 32)


def convolutions(network):
    return [m for m in network if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


def test_the_encoder_is_table_1_of_bergmann():
    """Output sizes, kernels, strides and paddings of the table, for an image of 128 x 128."""
    table = [
        (64, 32, 4, 2, 1),
        (32, 32, 4, 2, 1),
        (32, 32, 3, 1, 1),
        (16, 64, 4, 2, 1),
        (16, 64, 3, 1, 1),
        (8, 128, 4, 2, 1),
        (8, 64, 3, 1, 1),
        (8, 32, 3, 1, 1),
        (1, 100, 8, 1, 0),
    ]
    x, found = torch.zeros(1, 3, 128, 128), []
    for layer in encoder(128, 100):
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            found.append((x.shape[-1], x.shape[1], layer.kernel_size[0], layer.stride[0], layer.padding[0]))
    assert found == table


@pytest.mark.parametrize("size", [32, 64, 256])
@pytest.mark.parametrize("norm", [False, True])
def test_the_decoder_mirrors_the_encoder(size, norm):
    channels = tuple(c // 16 for c in WIDE)
    down, up = encoder(size, 6, channels, norm), decoder(size, 5, channels, norm)
    code = down(torch.rand(2, 3, size, size))
    assert code.shape == (2, 6, 1, 1)
    assert up(code[:, :5]).shape == (2, 3, size, size)
    there, back = convolutions(down), convolutions(up)
    assert [m.in_channels for m in there] == [m.out_channels for m in back][::-1]
    assert [(m.kernel_size, m.stride) for m in there] == [(m.kernel_size, m.stride) for m in back][::-1]


def test_with_norm_all_layers_but_the_last_are_normalised():
    for make in (encoder, decoder):
        types = [type(m) for m in make(32, 4, norm=True)]
        last = types.pop()
        assert last in (nn.Conv2d, nn.ConvTranspose2d)
        assert types == [last, nn.BatchNorm2d, nn.LeakyReLU] * (len(types) // 3)


def test_code_and_image_are_linear():
    assert isinstance(encoder(64, 4)[-1], nn.Conv2d)
    assert isinstance(decoder(64, 4)[-1], nn.ConvTranspose2d)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_impossible_shapes_are_refused(make):
    with pytest.raises(BadConfig, match="size is 32, 64, 128, 256 or 512, not 100"):
        make(100, 4)
    with pytest.raises(BadConfig, match="must all be above 0"):
        make(64, 0)
