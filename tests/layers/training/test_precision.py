import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drawn_images import images
from iadbe.data.images import Batch
from iadbe.errors import BadConfig, Missing
from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex
from iadbe.layers.training import precision
from iadbe.layers.training.loop import federated, loop, step
from iadbe.layers.training.precision import computing
from iadbe.layers.training.resume import Checkpoints
from iadbe.networks.backbone import Backbone

TRAIN = images([np.full((8, 8, 3), 30 * v, np.uint8) for v in range(6)])


class Interrupted(Exception):
    """A process is killed."""


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.seen, self.types = [], set()

    def fit(self, batch=2, epochs=3, until=None, norm=float("inf"), calls=1):
        optimizer = torch.optim.SGD(self.network.parameters(), 0.05, momentum=0.9)
        rate = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
        for shown in loop(TRAIN, epochs=epochs, batch=batch, rng=np.random.default_rng(0), state=(optimizer, rate)):
            for _ in range(calls):
                output = self.network(shown.image)
                self.types.add(output.dtype)
                step(optimizer, F.mse_loss(output.float(), torch.ones_like(output).float()), norm)
            rate.step()
            self.seen.append(shown.id)
            if len(self.seen) == until:
                raise Interrupted
        return self


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.parameters()])


@pytest.mark.parametrize(("kind", "close"), [("bf16", 2e-2), ("fp16", 2e-3)])
def test_training_in_16_bits_is_near_that_in_32_with_float32_weights(kind, close):
    with computing(kind):
        found = Learner().fit(epochs=8)
    assert found.types == {precision.TYPES[kind]}
    assert all(p.dtype == torch.float32 for p in found.parameters())
    exact = Learner().fit(epochs=8)
    assert exact.types == {torch.float32}
    assert not torch.equal(weights(found), weights(exact))
    if kind == "bf16":  # in fp16 the scale of the loss is found by skipping the first steps
        torch.testing.assert_close(weights(found), weights(exact), rtol=close, atol=close)


def test_in_fp16_small_gradients_do_not_vanish_and_infinite_ones_are_skipped():
    weight = nn.Parameter(torch.tensor([2.0**-10]))
    with computing("fp16"):
        optimizer = torch.optim.SGD([weight], 1.0)
        arithmetic = precision.current_arithmetic()
        before = arithmetic.scaler.get_scale()
        step(optimizer, (weight.half() * 2.0**-14).sum().float() * 2.0**-9)  # 2**-23: below what fp16 can tell from 0
        torch.testing.assert_close(weight.detach(), torch.tensor([2.0**-10 - 2.0**-23]))
        value = weight.item()
        step(optimizer, weight.sum() * torch.inf)
        assert weight.item() == value
        assert arithmetic.scaler.get_scale() == before / 2


def test_the_norm_is_that_of_unscaled_gradients():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    with computing("fp16"):
        step(torch.optim.SGD([weight], 1.0), (weight**2).sum() / 2, 0.5)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0, 4.0]) * (1 - 0.5 / 5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [float("inf"), 0.3])
def test_accumulated_batches_are_one_large_batch(norm):
    """Batches of 2, three at a time, are the batches of 6: one for each of the 4 epochs."""
    with computing(accumulate=3):
        found = Learner().fit(batch=2, epochs=4, norm=norm)
    whole = Learner()
    optimizer = torch.optim.SGD(whole.network.parameters(), 0.05, momentum=0.9)
    for epoch in range(4):
        output = whole.network(torch.cat([b.image for b in TRAIN.batches(6)]))
        optimizer.param_groups[0]["lr"] = 0.05 * 0.5 ** ((3 * epoch + 2) // 4)  # the schedule counts batches
        step(optimizer, F.mse_loss(output, torch.ones_like(output)), norm)
    torch.testing.assert_close(weights(found), weights(whole))


def test_the_last_batches_of_a_loop_make_a_step_of_their_own():
    """Five batches, four at a time: the second step has the gradient of one, not a quarter of it."""
    weight = nn.Parameter(torch.tensor(1.0))
    optimizer = torch.optim.SGD([weight], 0.1)
    with computing(accumulate=4):
        for _ in loop(TRAIN, epochs=5, batch=6, rng=np.random.default_rng(0), state=(optimizer,)):
            step(optimizer, weight**2)
    assert weight.item() == pytest.approx((1 - 0.1 * 2) * (1 - 0.1 * 2))


def test_gradients_that_another_loss_leaves_behind_do_not_count():
    """As where a generator and a discriminator train in turn: each loss has gradients of both."""
    one, other = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))
    optimizers = torch.optim.SGD([one], 0.1), torch.optim.SGD([other], 0.1)
    with computing(accumulate=2):
        for _ in range(2):
            step(optimizers[0], one * other)
            step(optimizers[1], one.detach() * other**2)
    assert one.item() == pytest.approx(1 - 0.1 * 2)
    assert other.item() == pytest.approx(2 - 0.1 * (4 + 3.2) / 2)  # the second loss sees the first one's step


@pytest.mark.parametrize(
    ("kind", "accumulate", "calls"), [("bf16", 1, 1), ("fp16", 2, 1), ("fp32", 4, 1), ("fp16", 3, 2)]
)
@pytest.mark.parametrize("until", [2, 6])
def test_interrupted_training_goes_on_to_the_bit(tmp_path, kind, accumulate, calls, until):
    with computing(kind, accumulate=accumulate):
        whole = Learner().fit(calls=calls, norm=0.5)
    for end in (until, None):
        found, checkpoints = Learner(), Checkpoints(tmp_path, {}, interval=0)
        try:
            with computing(kind, accumulate=accumulate), checkpoints.training(found, "0"):
                found.fit(calls=calls, norm=0.5, until=end)
        except Interrupted:
            assert not torch.is_autocast_enabled("cpu")
    assert len(found.seen) == 9 - until + 1
    assert torch.equal(weights(found), weights(whole))


def test_fedprox_pulls_the_mean_gradient_once():
    ways = []
    for accumulate in (1, 2):
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = torch.optim.SGD([weight], 0.1)
        with federated(1, 0.7), computing(accumulate=accumulate):
            for _ in range(3 * accumulate):
                step(optimizer, (weight**3).sum())
        ways.append(weight.detach())
    torch.testing.assert_close(*ways)


def test_frozen_features_and_neighbours_are_exact_within_a_loop():
    backbone, image = Backbone(weights="none"), torch.rand(2, 3, 32, 32)
    index, queries = NeighbourIndex(torch.rand(50, 8)), torch.rand(20, 8)

    def found():
        return [*backbone(Batch(image)), *index.nearest(queries, 3)]

    expected = found()
    with computing("bf16"):
        for _ in loop(TRAIN, epochs=1, batch=6, rng=np.random.default_rng(0)):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
            assert all(torch.equal(a, b) for a, b in zip(found(), expected, strict=True))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("wrong", [{"precision": "fp8"}, {"accumulate": 0}])
def test_an_unknown_precision_is_refused(wrong):
    with pytest.raises(BadConfig, match="precision is fp32, bf16, fp16, and accumulate at least 1"), computing(**wrong):
        pass


def test_a_device_without_16_bits_is_named(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", refuse)
    with pytest.raises(Missing, match="fp16 cannot be computed on cpu here. Train with precision fp32"):
        precision.check("fp16", "cpu")
    precision.check("fp32", "cpu")
