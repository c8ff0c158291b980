import torch
import torch.nn.functional as F

from iadbe.layers.features.neighbourhoods import neighbourhoods


def test_a_neighbourhood_has_no_centre():
    features = torch.arange(2 * 3 * 4.0).view(2, 3, 4, 1) + 1  # 1 to 12, 13 to 24
    padded = F.pad(features, (0, 0, 1, 1, 1, 1))
    found = neighbourhoods(padded, torch.tensor([5, 0, 12 + 11]), 1)
    assert found[0].tolist() == [1, 2, 3, 5, 7, 9, 10, 11]
    assert found[1].tolist() == [0, 0, 0, 0, 2, 0, 5, 6]
    assert found[2].tolist() == [19, 20, 0, 23, 0, 0, 0, 0]
