import pytest
import torch
from torch import nn

from iadbe.layers.training.ema import EMA


def test_weights_follow_by_the_formula_and_buffers_are_copied():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    ema = EMA(network, 0.9)
    expected = [p.detach().clone() for p in network.parameters()]
    for step in range(4):
        with torch.no_grad():
            for number, p in enumerate(network.parameters()):
                p += number + step
            network(torch.rand(5, 2).double())
        ema.update()
        expected = [0.9 * average + 0.1 * p.detach() for average, p in zip(expected, network.parameters(), strict=True)]
    for average, wanted in zip(ema.network.parameters(), expected, strict=True):
        torch.testing.assert_close(average, wanted)
        assert not average.requires_grad
    assert torch.equal(ema.network[1].running_mean, network[1].running_mean)
    assert ema.network[1].num_batches_tracked == 4
    assert not ema.network.training


def test_with_a_ramp_up_the_first_steps_are_a_plain_mean():
    network = nn.Linear(1, 1, bias=False)
    seen = []
    ema = EMA(network, 0.99, ramp_up=True)
    for value in (3.0, 5.0, 10.0):
        seen.append(value)
        with torch.no_grad():
            network.weight.fill_(value)
        if len(seen) == 1:
            ema = EMA(network, 0.99, ramp_up=True)
        else:
            ema.update()
        assert float(ema.network.weight) == pytest.approx(sum(seen) / len(seen))


def test_its_state_is_all_of_it():
    network = nn.Linear(2, 2)
    ema = EMA(network, 0.5, ramp_up=True)
    with torch.no_grad():
        network.weight.add_(1)
    ema.update()
    other = EMA(network, 0.5, ramp_up=True)
    other.load_state_dict(ema.state_dict())
    assert other.steps == 1
    with torch.no_grad():
        network.weight.add_(1)
    ema.update()
    other.update()
    assert torch.equal(ema.network.weight, other.network.weight)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="below 1"):
        EMA(nn.Linear(1, 1), decay)
