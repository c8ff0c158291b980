import math

import pytest
import torch
from torch import nn
from torch.func import jacrev

from iadbe.layers.flows.coupling import AffineCoupling
from iadbe.layers.flows.invertible import Flow, InvertibleLayer, negative_log_likelihood
from iadbe.layers.flows.mixing import Permutation, Rotation, Upsampling
from iadbe.layers.flows.scaling import ChannelAffine, Standardisation
from iadbe.layers.flows.subnets import ConvolutionalSubnet, LinearSubnet

MAP, ROW = (2, 5, 3, 4), (3, 6)


POSITIONS, ROW_CODES = torch.randn(1, 4, 3, 4), torch.randn(3, 2)


def convolutions(kernel, condition=0, norm=False):
    return lambda inside, outside: ConvolutionalSubnet(inside, outside, 7, kernel, condition, norm)


def linear(condition):
    return lambda inside, outside: LinearSubnet(inside, outside, 9, condition)


LAYERS = {
    "identity": (lambda: InvertibleLayer(), MAP, None),
    "maps": (lambda: AffineCoupling(5, convolutions(3)), MAP, None),
    "maps, atan": (lambda: AffineCoupling(5, convolutions(1), 3.0, "atan"), MAP, None),
    "maps, conditional": (lambda: AffineCoupling(5, convolutions(3, 4, norm=True)), MAP, POSITIONS),
    "rows": (lambda: AffineCoupling(6, linear(0)), ROW, None),
    "rows, conditional": (lambda: AffineCoupling(6, linear(2)), ROW, ROW_CODES),
    "permutation": (lambda: Permutation(5), MAP, None),
    "rotation": (lambda: Rotation(6), ROW, None),
    "affine": (lambda: ChannelAffine(5), MAP, None),
    "affine rows": (lambda: ChannelAffine(6), ROW, None),
    "standardisation": (lambda: standard(5), MAP, None),
    "upsampling": (lambda: Upsampling(2), (2, 8, 3, 2), None),
    "flow": (lambda: Flow([ChannelAffine(5), Permutation(5), AffineCoupling(5, convolutions(3, 4))]), MAP, POSITIONS),
    "flow of rows": (
        lambda: Flow([Rotation(6), AffineCoupling(6, linear(2)), ChannelAffine(6)] * 2),
        ROW,
        ROW_CODES,
    ),
}


def standard(channels):
    layer = Standardisation(channels)
    layer.measure(torch.randn(channels), torch.rand(channels))
    return layer


def initialised(make):
    """A layer far from where training starts, in double precision."""
    torch.manual_seed(0)
    layer = make()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=1.0)
    return layer.double()


@pytest.fixture(params=LAYERS, ids=lambda name: name.replace(" ", "-"))
def case(request):
    make, shape, condition = LAYERS[request.param]
    return initialised(make), torch.randn(shape, dtype=torch.float64), None if condition is None else condition.double()


@torch.no_grad()
def test_inverse_undoes_forward(case):
    layer, x, condition = case
    z, _ = layer(x, condition)
    assert z.numel() == x.numel()
    torch.testing.assert_close(layer.inverse(z, condition), x, rtol=1e-5, atol=1e-5)


def test_log_det_is_that_of_the_jacobian_by_autograd(case):
    layer, x, condition = case
    with torch.no_grad():
        _, log_det = layer(x, condition)
    assert log_det.shape == x.shape[:1] + x.shape[2:]
    for i in range(len(x)):
        shared = condition if condition is None or x.dim() == 4 else condition[i : i + 1]
        jacobian = jacrev(lambda v, c=shared: layer(v[None], c)[0].flatten())(x[i])
        expected = torch.linalg.slogdet(jacobian.reshape(x[i].numel(), -1).detach())[1]
        torch.testing.assert_close(log_det[i].sum(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_values_and_log_det_are_float32_where_subnets_compute_in_16_bits(case, kind):
    layer, x, condition = (None if part is None else part.float() for part in case)
    with torch.no_grad(), torch.autocast("cpu", kind):
        z, log_det = layer(x, condition)
    assert (z.dtype, log_det.dtype) == (torch.float32, torch.float32)
    if not any("subnet" in name for name, _ in layer.named_parameters()):
        assert torch.equal(z, layer(x, condition)[0])


@pytest.mark.parametrize("soft", ["tanh", "atan"])
def test_large_inputs_train_in_bfloat16(soft):
    torch.manual_seed(0)
    couplings = [AffineCoupling(6, convolutions(3), 3.0, soft) for _ in range(4)]
    flow = Flow(layer for coupling in couplings for layer in (coupling, ChannelAffine(6), Permutation(6)))
    optimizer, losses = torch.optim.Adam(flow.parameters(), 2e-3), []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = negative_log_likelihood(*flow(1000 * torch.randn(2, 6, 8, 8))).mean() / (6 * 64)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


def test_a_flow_learns_a_density():
    """After training, the likelihood is close to the truth, that of a bent Gaussian."""
    torch.manual_seed(0)

    def bent(count):
        x = torch.randn(count, 2)
        return torch.stack([x[:, 0], 0.5 * x[:, 1] + x[:, 0].square()], 1)

    def layers():
        for _ in range(6):
            yield from (AffineCoupling(2, lambda i, o: LinearSubnet(i, o, 32)), ChannelAffine(2), Rotation(2))

    flow = Flow(layers())
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
