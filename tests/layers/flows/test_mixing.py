import torch

from iadbe.layers.flows.mixing import Permutation, Rotation


def test_permutations_and_rotations_follow_the_seed_and_are_not_trained():
    def drawn(seed):
        torch.manual_seed(seed)
        return [Permutation(50).order, Rotation(50).matrix]

    again, other = drawn(0), drawn(1)
    for mine, same, different in zip(drawn(0), again, other, strict=True):
        assert torch.equal(mine, same)
        assert not torch.equal(mine, different)
    torch.testing.assert_close(again[1] @ again[1].T, torch.eye(50), atol=1e-5, rtol=0)
    assert not [*Permutation(5).parameters(), *Rotation(5).parameters()]
