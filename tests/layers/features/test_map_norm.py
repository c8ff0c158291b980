import torch
from torch import nn

from iadbe.layers.features.map_norm import MapNorm


def test_it_is_the_layer_norm_of_torch_over_the_whole_map():
    x = 5 + 3 * torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    norm, reference = MapNorm(4, 3, 5), nn.LayerNorm([4, 3, 5])
    torch.testing.assert_close(norm(x), reference(x))
    assert norm.weight.shape == reference.weight.shape
    with torch.no_grad():
        for parameter in (norm.weight, reference.weight):
            parameter[1] = 2
        for parameter in (norm.bias, reference.bias):
            parameter[:, 2] = -1
    torch.testing.assert_close(norm(x), reference(x))


def test_without_a_size_it_waits_for_its_parameters():
    norm = MapNorm()
    norm.weight, norm.bias = nn.Parameter(torch.ones(2, 3, 3)), nn.Parameter(torch.zeros(2, 3, 3))
    assert norm(torch.rand(1, 2, 3, 3)).shape == (1, 2, 3, 3)
