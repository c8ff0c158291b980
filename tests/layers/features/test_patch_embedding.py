import numpy as np
import torch
import torch.nn.functional as F

from iadbe.layers.features.patch_embedding import patch_embedding

GENERATOR = torch.Generator().manual_seed(0)
FINE, COARSE = torch.randn(2, 4, 6, 6, generator=GENERATOR), torch.randn(2, 8, 3, 3, generator=GENERATOR)


def test_without_a_size_layers_are_averaged_and_stacked():
    found = patch_embedding([FINE, COARSE])
    assert found.shape == (2, 12, 6, 6)
    torch.testing.assert_close(found[:, :4, 1, 2], FINE[:, :, 0:3, 1:4].mean((2, 3)))


def test_with_a_size_each_value_is_a_mean_over_neighbourhood_and_channels():
    found = patch_embedding([FINE], 12)  # 36 values of a neighbourhood become 12, and these stay
    assert found.shape == (2, 12, 6, 6)
    around = FINE[0, :, 2:5, 3:6].reshape(4, 9).numpy()  # of row 3, column 4
    np.testing.assert_allclose(found[0, :, 3, 4], around.reshape(12, 3).mean(1), rtol=1e-5, atol=1e-6)


def test_the_neighbourhood_can_be_larger():
    found = patch_embedding([FINE], 20, side=5)  # 100 values of a neighbourhood become 20
    around = FINE[0, :, 1:6, 0:5].reshape(4, 25).numpy()  # of row 3, column 2
    np.testing.assert_allclose(found[0, :, 3, 2], around.reshape(20, 5).mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(patch_embedding([FINE], side=5)[0, :, 3, 2], FINE[0, :, 1:6, 0:5].mean((1, 2)))


def test_layers_share_the_first_ones_grid():
    found = patch_embedding([FINE, COARSE], 36)
    first = patch_embedding([FINE], 36)
    second = F.interpolate(patch_embedding([COARSE], 36), (6, 6), mode="bilinear", align_corners=False)
    both = torch.cat([first, second], 1).view(2, 36, 2, 6, 6).mean(2)
    torch.testing.assert_close(found, both)
