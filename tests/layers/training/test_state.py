import numpy as np
import pytest
import torch
from torch import nn

from iadbe.layers.training.state import (
    Variables,
    learnt_tensors,
    put_state,
    put_tensors,
    random_state,
    set_random_state,
    state_of,
)
from iadbe.networks.backbone import Backbone


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone(weights="none")
        self.student = nn.BatchNorm2d(2)
        self.register_buffer("bank", torch.zeros(2, 3))
        self.register_buffer("hidden", torch.ones(2), persistent=False)


def test_all_that_is_learnt_is_named_but_nothing_of_a_frozen_backbone():
    own = learnt_tensors(Learner())
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert sorted(own) == sorted(["bank", "hidden", *(f"student.{n}" for n in norm)])


def test_a_backbone_that_is_trained_is_learnt_too():
    learner = Learner()
    learner.backbone.requires_grad_(True)
    assert set(dict(learner.named_parameters())) <= set(learnt_tensors(learner))


def test_tensors_are_put_where_they_were_and_optimizers_still_know_them():
    first, second = Learner(), Learner()
    with torch.no_grad():
        first.student.weight.fill_(5)
    first.bank = torch.arange(4.0)
    parameter = second.student.weight
    put_tensors(second, {name: value.clone() for name, value in learnt_tensors(first).items()})
    assert second.student.weight is parameter
    assert torch.equal(parameter, torch.full((2,), 5.0))
    assert torch.equal(second.bank, torch.arange(4.0))


def test_a_view_is_kept_without_the_memory_behind_it():
    learner = Learner()
    learner.bank = torch.zeros(1000, 1000)[0]
    assert learnt_tensors(learner)["bank"].untyped_storage().nbytes() == 4000


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.SFC64])
def test_random_numbers_go_on_from_their_state(bits):
    rng = np.random.Generator(bits(3))
    rng.integers(9, dtype=np.int32)  # half of a 64-bit number is left over
    state = random_state(rng)
    expected = rng.permutation(50).tolist(), rng.integers(9, dtype=np.int32)
    other = np.random.Generator(bits(0))
    set_random_state(other, state)
    assert (other.permutation(50).tolist(), other.integers(9, dtype=np.int32)) == expected


def test_states_of_all_kinds_are_put_back():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter], 0.1)
    owners = [torch.Generator().manual_seed(1), np.random.default_rng(1), optimizer, Variables(best=0.5)]
    before = [state_of(own) for own in owners]
    expected = torch.rand(3, generator=owners[0]), owners[1].random()
    optimizer.param_groups[0]["lr"] = 7.0
    owners[3].best = 9.0
    for own, state in zip(owners, before, strict=True):
        put_state(own, state)
    assert torch.equal(torch.rand(3, generator=owners[0]), expected[0])
    assert owners[1].random() == expected[1]
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert owners[3].best == 0.5


def test_variables_have_only_the_names_that_are_kept():
    count = Variables(steps=0)
    count.steps += 2
    assert count.state_dict() == {"steps": 2}
    with pytest.raises(AttributeError, match="stepz is not among steps"):
        count.stepz = 1
    with pytest.raises(AttributeError, match="other is not among steps"):
        print(count.other)
