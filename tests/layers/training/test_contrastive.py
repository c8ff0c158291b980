import pytest
import torch

from iadbe.layers.training.contrastive import cubed_hinge, pair_cosines, sample_pairs, values_at


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_pairs_are_at_positions_of_their_kind():
    mask = torch.zeros(2, 1, 32, 48, dtype=torch.bool)
    mask[0, :, 8:12, 10:20] = True
    pairs = sample_pairs(mask, 6.0, 300, generator())

    def pixels(positions):
        return ((positions + 1) / 2 * torch.tensor([48, 32])).floor().long()

    def defective(positions, image):
        x, y = pixels(positions[image]).T
        return mask[image, 0, y, x]

    assert bool(pairs.normal_weight.all())
    assert not defective(pairs.normal, 0).any()
    assert len(pixels(pairs.normal[0]).unique(dim=0)) == 300  # without replacement
    assert pairs.defect_weight.sum(1).tolist() == [40, 0]
    assert defective(pairs.defect[:, :40], 0).all()
    anywhere, normal = pairs.distant
    distance = ((anywhere - normal) / 2 * torch.tensor([48, 32])).norm(dim=2)
    assert torch.equal(pairs.distant_weight > 0, distance > 6)
    assert torch.equal(normal, pairs.normal)


def test_the_hinge_is_cubed_and_averages_over_pairs_with_a_weight():
    excess, weight = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert float(cubed_hinge(excess, weight)) == pytest.approx(0.5**3 / 2)
    assert float(cubed_hinge(excess, torch.zeros(1, 3))) == 0


def test_values_at_a_position_are_those_of_its_pixel():
    features = torch.arange(12.0).view(1, 1, 3, 4)
    position = torch.tensor([[[(2 + 0.5) / 4, (1 + 0.5) / 3]]]) * 2 - 1
    assert float(values_at(features, position)) == pytest.approx(6)


def test_cosines_of_pairs_compare_both_images():
    query, reference = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    query[0, :, 0, 1], reference[0, :, 1, 0] = torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])
    upper_right, lower_left = torch.tensor([[[0.5, -0.5]]]), torch.tensor([[[-0.5, 0.5]]])
    assert float(pair_cosines(query, reference, (upper_right, lower_left))) == pytest.approx(0.5**0.5)
