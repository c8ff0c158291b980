import pytest
import torch

from iadbe.layers.blocks.refiner import Refiner, refinement_loss
from iadbe.layers.training.loop import step


def test_the_loss_is_that_of_values_and_gradients():
    truth = torch.zeros(1, 3, 3)
    found = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])
    assert float(refinement_loss(found, truth)) == pytest.approx(3 / 9 / 2 + 1 / 4 + 0)
    assert float(refinement_loss(found.mT, truth)) == pytest.approx(3 / 9 / 2 + 1 / 4)
    assert float(refinement_loss(truth, truth)) == 0


@pytest.mark.parametrize("side", [32, 37])
def test_before_training_it_changes_nothing(side):
    image, map_ = torch.rand(2, 3, side, side), torch.rand(2, side, side)
    assert torch.equal(Refiner(4).eval()(image, map_).detach(), map_)


def test_it_learns_to_sharpen_a_blurred_map_to_the_shape_in_the_image():
    source = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        refiner = Refiner(4, 2)
    image = torch.zeros(8, 3, 32, 32)
    for photo, (y, x) in zip(image, torch.randint(0, 24, (8, 2), generator=source).tolist(), strict=True):
        photo[:, y : y + 8, x : x + 8] = 1
    truth = image[:, 0]
    blurred = torch.nn.functional.avg_pool2d(truth, 9, 1, 4)
    optimizer = torch.optim.Adam(refiner.parameters(), 1e-2)
    first = float(refinement_loss(blurred, truth))
    for _ in range(40):
        last = step(optimizer, refinement_loss(refiner(image, blurred), truth))
    assert last < 0.2 * first
