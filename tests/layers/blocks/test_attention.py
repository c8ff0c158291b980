import numpy as np
import pytest
import torch
from torch import nn

from iadbe.layers.blocks.attention import AttentionLayer, FeedForward, LinearAttention, LinearBlock, neighbour_mask


def made(kind, *shape):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(*shape).eval()


def tokens(count=12, dim=8, seed=0):
    return torch.randn(2, count, dim, generator=torch.Generator().manual_seed(seed))


def test_linear_attention_is_attention_with_another_kernel():
    layer, x = made(LinearAttention, 8, 2), tokens()
    query, key, value = layer.qkv(x).detach().double().numpy().reshape(2, 12, 3, 2, 4).transpose(2, 0, 3, 1, 4)
    query, key = (np.where(v > 0, v + 1, np.exp(v)) for v in (query, key))
    weights = query @ key.swapaxes(-1, -2)  # (B, heads, N, N), which the layer never makes
    weights /= weights.sum(-1, keepdims=True)
    found = torch.from_numpy((weights @ value).swapaxes(1, 2).reshape(2, 12, 8)).float()
    torch.testing.assert_close(layer(x), layer.out(found), rtol=1e-4, atol=1e-5)


def test_a_block_adds_its_branch_to_the_input():
    block, x = made(LinearBlock, 8, 2), tokens()
    for layer in (block.attention.out, block.mlp[-1]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("masked", [False, True])
def test_softmax_attention_is_that_of_torch(masked):
    layer, reference = made(AttentionLayer, 8, 2, 0.0), nn.MultiheadAttention(8, 2, batch_first=True)
    reference.in_proj_weight.data = torch.cat([layer.query.weight, layer.key.weight, layer.value.weight])
    reference.in_proj_bias.data = torch.cat([layer.query.bias, layer.key.bias, layer.value.bias])
    reference.out_proj.load_state_dict(layer.out.state_dict())
    x, memory, position = tokens(), tokens(seed=1), tokens(seed=2)[0]
    forbidden = neighbour_mask(3, 4, 3) if masked else None
    found, _ = reference(x + position, memory + position, memory, attn_mask=forbidden)
    torch.testing.assert_close(layer(x, memory, position, forbidden), layer.norm(x + found), rtol=1e-4, atol=1e-5)


def test_a_masked_position_has_no_influence():
    layer, x = made(AttentionLayer, 8, 2, 0.0), tokens(25)
    forbidden = neighbour_mask(5, 5, 3)
    other = x.clone()
    other[:, 12] += 1  # the middle
    changed = (layer(x, other, x[0], forbidden) - layer(x, x, x[0], forbidden)).abs().amax((0, 2)) > 1e-6
    assert torch.equal(changed, ~forbidden[12])


def test_neighbours_are_those_in_the_square():
    forbidden = neighbour_mask(9, 11, 7)
    for a in range(99):
        for b in range(99):
            near = abs(a // 11 - b // 11) <= 3 and abs(a % 11 - b % 11) <= 3
            assert bool(forbidden[a, b]) == near


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 4), (7, 7), (1, 5), (8, 2)])
def test_every_position_attends_to_some_position(height, width):
    assert not neighbour_mask(height, width, 7).all(1).any()


def test_there_is_no_mask_where_it_would_hide_everything():
    assert neighbour_mask(1, 1, 7) is None
    assert neighbour_mask(5, 5, 0) is None


def test_attention_dropout_is_for_training():
    plain, thin, x = made(AttentionLayer, 8, 2, 0.0), made(AttentionLayer, 8, 2, 0.0, 0.5), tokens()
    assert torch.equal(plain(x, x, x[0], None), thin(x, x, x[0], None))
    thin.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.allclose(thin(x, x, x[0], None), thin(x, x, x[0], None))


def test_feed_forward_treats_tokens_independently():
    layer, x = made(FeedForward, 8, 16, 0.1), tokens()
    torch.testing.assert_close(layer(x)[:, 3], layer(x[:, 3:4])[:, 0])
