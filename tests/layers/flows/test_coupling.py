import math

import pytest
import torch
from torch import nn
from torch.func import jacrev

from iadbe.layers.flows.coupling import (
    Affine,
    Brick,
    Convolutions,
    Coupling,
    Flow,
    JointCoupling,
    Perceptron,
    Permutation,
    Rotation,
    Standard,
    Upsampling,
    measure,
    negative_log_likelihood,
    scale_and_shift,
)

MAP, ROW = (2, 5, 3, 4), (3, 6)
PLACES, FACTS = torch.randn(1, 4, 3, 4), torch.randn(3, 2)


def convolutions(kernel, condition=0, norm=False):
    return lambda inside, outside: Convolutions(inside, outside, 7, kernel, condition, norm)


def perceptron(condition):
    return lambda inside, outside: Perceptron(inside, outside, 9, condition)


BRICKS = {
    "nothing": (lambda: Brick(), MAP, None),
    "maps": (lambda: Coupling(5, convolutions(3)), MAP, None),
    "maps, atan": (lambda: Coupling(5, convolutions(1), 3.0, "atan"), MAP, None),
    "maps, conditional": (lambda: Coupling(5, convolutions(3, 4, norm=True)), MAP, PLACES),
    "rows": (lambda: Coupling(6, perceptron(0)), ROW, None),
    "rows, conditional": (lambda: Coupling(6, perceptron(2)), ROW, FACTS),
    "permutation": (lambda: Permutation(5), MAP, None),
    "rotation": (lambda: Rotation(6), ROW, None),
    "affine": (lambda: Affine(5), MAP, None),
    "affine rows": (lambda: Affine(6), ROW, None),
    "standard": (lambda: standard(5), MAP, None),
    "upsampling": (lambda: Upsampling(2), (2, 8, 3, 2), None),
    "flow": (lambda: Flow([Affine(5), Permutation(5), Coupling(5, convolutions(3, 4))]), MAP, PLACES),
    "flow of rows": (lambda: Flow([Rotation(6), Coupling(6, perceptron(2)), Affine(6)] * 2), ROW, FACTS),
}


def standard(channels):
    brick = Standard(channels)
    brick.measure(torch.randn(channels), torch.rand(channels))
    return brick


def made(make):
    """A brick far from where training starts, in double precision."""
    torch.manual_seed(0)
    brick = make()
    for parameter in brick.parameters():
        nn.init.normal_(parameter, std=1.0)
    return brick.double()


@pytest.fixture(params=BRICKS, ids=lambda name: name.replace(" ", "-"))
def case(request):
    make, shape, condition = BRICKS[request.param]
    return made(make), torch.randn(shape, dtype=torch.float64), None if condition is None else condition.double()


@torch.no_grad()
def test_inverse_undoes_forward(case):
    brick, x, condition = case
    z, _ = brick(x, condition)
    assert z.numel() == x.numel()
    torch.testing.assert_close(brick.inverse(z, condition), x, rtol=1e-5, atol=1e-5)


def test_log_det_is_that_of_autograds_jacobian(case):
    brick, x, condition = case
    with torch.no_grad():
        _, log_det = brick(x, condition)
    assert log_det.shape == x.shape[:1] + x.shape[2:]
    for i in range(len(x)):
        shared = condition if condition is None or x.dim() == 4 else condition[i : i + 1]
        jacobian = jacrev(lambda v, c=shared: brick(v[None], c)[0].flatten())(x[i])
        expected = torch.linalg.slogdet(jacobian.reshape(x[i].numel(), -1).detach())[1]
        torch.testing.assert_close(log_det[i].sum(), expected, rtol=1e-5, atol=1e-5)


class Mixing(nn.Module):
    """Lets every map see all others."""

    def __init__(self, inside, outside):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(sum(inside), o) for o in outside)

    def forward(self, maps):
        seen = torch.cat([m.mean((2, 3)) for m in maps], 1)
        pairs = zip(self.layers, maps, strict=True)
        return [layer(seen)[..., None, None] * m.mean(1, keepdim=True) for layer, m in pairs]


def test_a_joint_coupling_keeps_both_laws():
    shapes = [(3, 2, 2), (5, 1, 2), (4, 1, 1)]
    joint = made(lambda: JointCoupling([3, 5, 4], Mixing))
    sizes = [math.prod(s) for s in shapes]

    def cut(flat):
        return [p.reshape(1, *s) for p, s in zip(flat.split(sizes), shapes, strict=True)]

    x = torch.randn(sum(sizes), dtype=torch.float64)
    with torch.no_grad():
        z, log_det = joint(cut(x))
        for back, before in zip(joint.inverse(z), cut(x), strict=True):
            torch.testing.assert_close(back, before)
    jacobian = jacrev(lambda v: torch.cat([m.flatten() for m in joint(cut(v))[0]]))(x).detach()
    assert log_det.shape == (1,)
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian)[1])
    assert jacobian.count_nonzero() > 0.7 * jacobian.numel()  # every map has seen the others


@pytest.mark.parametrize(("soft", "slope"), [("tanh", 0.1 * 1.9), ("atan", 2 / math.pi)])
def test_the_scale_is_clamped_softly(soft, slope):
    raw = torch.tensor([[-1e9, -1e-3, 1e-3, 1e9, 0.0, 1.0, 2.0, -3.0]], dtype=torch.float64)
    log_scale, shift = scale_and_shift(raw, 1.9, soft)
    assert log_scale[0, [0, 3]].tolist() == pytest.approx([-1.9, 1.9])
    assert log_scale[0, [1, 2]].tolist() == pytest.approx([-1e-3 * slope, 1e-3 * slope])
    torch.testing.assert_close(shift, raw[:, 4:] * (0.1 if soft == "tanh" else 1))


def test_the_affine_begins_as_nothing():
    x = torch.randn(MAP)
    z, log_det = Affine(5)(x)
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(log_det, torch.zeros(2, 3, 4), atol=1e-5, rtol=0)


def test_fixed_bricks_follow_the_seed_and_are_not_trained():
    def drawn(seed):
        torch.manual_seed(seed)
        return [Permutation(50).order, Rotation(50).matrix]

    again, other = drawn(0), drawn(1)
    for mine, same, different in zip(drawn(0), again, other, strict=True):
        assert torch.equal(mine, same)
        assert not torch.equal(mine, different)
    torch.testing.assert_close(again[1] @ again[1].T, torch.eye(50), atol=1e-5, rtol=0)
    assert not [*Permutation(5).parameters(), *Rotation(5).parameters(), *Standard(5).parameters()]


def test_a_condition_is_a_part_of_the_first_convolution():
    """Computed apart, it is what a convolution over both, one beside the other, would give."""
    net, x = convolutions(3, 4)(5, 6), torch.randn(MAP)
    both = torch.cat([x, PLACES.expand(2, -1, -1, -1)], 1)
    weight = torch.cat([net.first.weight, net.extra.weight], 1)
    hidden = nn.functional.conv2d(both, weight, net.first.bias, padding=1)
    torch.testing.assert_close(net(x, PLACES), net.last(hidden.relu()))


def test_standards_measure_over_all_batches():
    x = [torch.randn(12, 3, 4, 4) * torch.tensor([5.0, 0.3, 0.0])[:, None, None] + 2, torch.randn(12, 2, 2, 2)]
    bricks = [Standard(3), Standard(2)]
    measure(bricks, ([layer[i : i + 5] for layer in x] for i in (0, 5, 10)))
    for brick, layer in zip(bricks, x, strict=True):
        flat = layer.transpose(0, 1).flatten(1)
        torch.testing.assert_close(brick.mean, flat.mean(1))
        variance = flat.var(1, correction=0)
        torch.testing.assert_close(brick.deviation, (variance + 0.01 * variance.mean()).sqrt())
        assert torch.isfinite(brick(layer)[0]).all()


def test_a_flow_learns_a_density():
    """After training, the likelihood is close to the truth, that of a bent Gaussian."""
    torch.manual_seed(0)

    def bent(count):
        x = torch.randn(count, 2)
        return torch.stack([x[:, 0], 0.5 * x[:, 1] + x[:, 0].square()], 1)

    def bricks():
        for _ in range(6):
            yield from (Coupling(2, lambda i, o: Perceptron(i, o, 32)), Affine(2), Rotation(2))

    flow = Flow(bricks())
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(250):
        loss = negative_log_likelihood(*flow(bent(256))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        loss = negative_log_likelihood(*flow(bent(4000))).mean()
    truth = 1 + math.log(0.5)  # ½ · 2 values, less log_det of the inverse of the bend
    assert truth - 0.05 < float(loss) < truth + 0.2


def test_likelihood_of_a_map_is_of_all_its_positions():
    z, log_det = torch.randn(MAP), torch.randn(2, 3, 4)
    expected = 0.5 * z.square().sum((1, 2, 3)) - log_det.sum((1, 2))
    torch.testing.assert_close(negative_log_likelihood(z, log_det), expected)
