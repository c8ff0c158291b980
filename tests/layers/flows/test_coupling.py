import math

import pytest
import torch
from torch import nn
from torch.func import jacrev

from iadbe.layers.flows.coupling import GlowCoupling, MultiScaleCoupling, scale_and_shift
from iadbe.layers.flows.subnets import ConvolutionalSubnet


class MeanOfAllMaps(nn.Module):
    """A subnet whose every output depends on all maps."""

    def __init__(self, inside, outside):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(sum(inside), o) for o in outside)

    def forward(self, maps):
        seen = torch.cat([m.mean((2, 3)) for m in maps], 1)
        pairs = zip(self.layers, maps, strict=True)
        return [layer(seen)[..., None, None] * m.mean(1, keepdim=True) for layer, m in pairs]


class Constant(nn.Module):
    """A subnet whose every output is the same value, in the precision of autocast."""

    def __init__(self, outside, value):
        super().__init__()
        self.outside, self.value = outside, value

    def forward(self, maps):
        shapes = [(len(m), channels, *m.shape[2:]) for m, channels in zip(maps, self.outside, strict=True)]
        return [torch.full(shape, self.value, dtype=torch.get_autocast_dtype("cpu")) for shape in shapes]


def test_a_multi_scale_coupling_is_invertible_and_its_log_det_is_that_of_the_jacobian():
    shapes = [(3, 2, 2), (5, 1, 2), (4, 1, 1)]
    torch.manual_seed(0)
    joint = MultiScaleCoupling([3, 5, 4], MeanOfAllMaps).double()
    for parameter in joint.parameters():
        nn.init.normal_(parameter)
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


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_log_det_of_large_maps_neither_overflows_nor_loses_digits_in_16_bits(kind):
    """Half of 65 536 values scaled by e³ each have a log_det of 196 608 for both halves: above float16's largest."""
    joint = MultiScaleCoupling([16], lambda inside, outside: Constant(outside, 1e4))
    with torch.no_grad(), torch.autocast("cpu", kind):
        (z,), log_det = joint([torch.ones(1, 16, 64, 64)])
    assert log_det.dtype == z.dtype == torch.float32
    assert float(log_det) == pytest.approx(3 * 16 * 64 * 64, rel=1e-3)
    assert z.isfinite().all()


@pytest.mark.parametrize(("soft", "slope"), [("tanh", 0.1 * 1.9), ("atan", 2 / math.pi)])
def test_the_scale_is_clamped_softly(soft, slope):
    raw = torch.tensor([[-1e9, -1e-3, 1e-3, 1e9, 0.0, 1.0, 2.0, -3.0]], dtype=torch.float64)
    log_scale, shift = scale_and_shift(raw, 1.9, soft)
    assert log_scale[0, [0, 3]].tolist() == pytest.approx([-1.9, 1.9])
    assert log_scale[0, [1, 2]].tolist() == pytest.approx([-1e-3 * slope, 1e-3 * slope])
    torch.testing.assert_close(shift, raw[:, 4:] * (0.1 if soft == "tanh" else 1))


def test_both_halves_of_a_glow_coupling_change_and_its_log_det_is_that_of_the_jacobian():
    torch.manual_seed(1)
    coupling = GlowCoupling(5, lambda i, o: ConvolutionalSubnet(i, o, 6, 3, 4, replicate=True, gain=True)).double()
    x, condition = torch.randn(1, 5, 2, 3, dtype=torch.float64), torch.randn(1, 4, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(coupling(x, condition)[0], x)  # the factors start at 0
    for parameter in coupling.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    with torch.no_grad():
        z, log_det = coupling(x, condition)
        torch.testing.assert_close(coupling.inverse(z, condition), x)
        assert not torch.isclose(z, x).any()
    jacobian = jacrev(lambda v: coupling(v.view_as(x), condition)[0].flatten())(x.flatten()).detach()
    assert log_det.shape == (1, 2, 3)
    torch.testing.assert_close(log_det.sum(), torch.linalg.slogdet(jacobian)[1])


def test_a_glow_coupling_is_that_of_the_formula():
    """y1 = e(s2) x1 + t2 of x2, then y2 = e(s1) x2 + t1 of y1, with e = exp(clamp 2/π arctan(s / clamp))."""
    torch.manual_seed(2)
    coupling = GlowCoupling(4, lambda i, o: nn.Conv2d(i, o, 1), clamp=1.9)
    x = torch.randn(2, 4, 3, 3)

    def e(s):
        return torch.exp(1.9 * 2 / math.pi * torch.atan(s / 1.9))

    one, two = x[:, :2], x[:, 2:]
    s, t = coupling.of_first(two).chunk(2, 1)
    one = e(s) * one + t
    s, t = coupling.of_second(one).chunk(2, 1)
    torch.testing.assert_close(coupling(x)[0], torch.cat([one, e(s) * two + t], 1))
