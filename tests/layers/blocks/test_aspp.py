import pytest
import torch
from torch import nn

from iadbe.layers.blocks.aspp import ASPP, conv_norm_relu


def open_to_everything(pyramid):
    """Give every weight the same positive value, so that nothing that is looked at goes unnoticed."""
    for module in pyramid.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.01)
    return pyramid.eval()


def test_an_output_depends_on_positions_at_the_dilation_rates_and_on_the_mean():
    x = torch.zeros(1, 2, 41, 41)
    x[:, :, 20, 20] = 1.0
    pyramid = open_to_everything(ASPP(2, 3))
    for rate, look in zip((6, 12, 18), pyramid.atrous, strict=True):
        seen = {(int(y) - 20, int(z) - 20) for y, z in look(x)[0, 0].nonzero()}
        assert seen == {(i * rate, j * rate) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    found = pyramid(x)
    assert found.shape == (1, 3, 41, 41)
    assert float(found.detach().min()) > 0  # by the mean over the whole image


@pytest.mark.parametrize("height", [1, 7, 16])
def test_small_grids_keep_their_size(height):
    assert ASPP(4, 5)(torch.rand(2, 4, height, 9)).shape == (2, 5, height, 9)


def test_a_dilated_convolution_keeps_the_grid():
    assert conv_norm_relu(2, 3, 3, 4)(torch.rand(2, 2, 8, 9)).shape == (2, 3, 8, 9)
