import pytest
import torch
from torch import nn

from iadbe.layers.blocks.residual import ResidualBlock, residual_stage

X = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(0))


def silent(block):
    """Take the branch out of a block: its last norm gives nothing."""
    nn.init.zeros_(block.branch[-1].weight)
    return block.eval()


@pytest.mark.parametrize("inner", [0, 4])
@pytest.mark.parametrize(("resize", "size"), [("halve", (4, 5)), ("keep", (8, 10)), ("double", (16, 20))])
def test_it_resizes_the_grid(resize, size, inner):
    assert ResidualBlock(6, 12, resize, inner)(X).shape == (2, 12, *size)


def test_odd_grids_are_halved_upwards():
    assert ResidualBlock(6, 6, "halve")(X[:, :, :7, :9]).shape == (2, 6, 4, 5)


def test_without_its_branch_a_block_is_the_identity():
    assert torch.equal(silent(ResidualBlock(6, 6, rectified=False))(X), X)
    assert torch.equal(silent(ResidualBlock(6, 6))(X), X.relu())


def test_the_shortcut_of_a_doubling_block_copies_each_position_to_four():
    block = silent(ResidualBlock(6, 3, "double", rectified=False))
    weight = block.shortcut[0].weight  # (6, 3, 2, 2)
    expected = torch.einsum("bchw,cdij->bdhiwj", X, weight).reshape(2, 3, 16, 20)
    torch.testing.assert_close(block(X), expected / (1 + block.shortcut[1].eps) ** 0.5, rtol=1e-4, atol=1e-5)


def test_a_bottleneck_is_narrow_inside():
    kernels = [tuple(m.weight.shape) for m in ResidualBlock(16, 16, inner=4).branch if isinstance(m, nn.Conv2d)]
    assert kernels == [(4, 16, 1, 1), (4, 4, 3, 3), (16, 4, 1, 1)]
    kernels = [tuple(m.weight.shape) for m in ResidualBlock(16, 8).branch if isinstance(m, nn.Conv2d)]
    assert kernels == [(8, 16, 3, 3), (8, 8, 3, 3)]


def test_only_the_first_block_of_a_stage_resizes_and_only_the_last_may_be_signed():
    made = residual_stage(6, 12, 3, "halve", rectified=False)
    assert [type(b.shortcut) is nn.Identity for b in made] == [False, True, True]
    assert [type(b.end) for b in made] == [nn.ReLU, nn.ReLU, nn.Identity]
    assert made(X).shape == (2, 12, 4, 5)
    assert made(X).min() < 0 <= residual_stage(6, 12, 3, "halve")(X).min()
