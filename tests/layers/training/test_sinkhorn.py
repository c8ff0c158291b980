import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from iadbe.layers.training.sinkhorn import sinkhorn_divergence


def clouds(count=2, points=12, dim=3, seed=0):
    return torch.randn(count, points, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def direct_transport(first, second, temperature):
    """The regularised cost by the plain iteration on the plan's scalings: <P, C> + ε KL(P | a ⊗ b)."""
    cost = 0.5 * ((first[:, None] - second[None]) ** 2).sum(-1)
    a, b = np.full(len(first), 1 / len(first)), np.full(len(second), 1 / len(second))
    kernel = np.exp(-cost / temperature)
    u, v = np.ones(len(first)), np.ones(len(second))
    for _ in range(5000):
        u = 1 / (kernel @ (b * v))
        v = 1 / (kernel.T @ (a * u))
    plan = (a * u)[:, None] * kernel * (b * v)[None]
    return (plan * cost).sum() + temperature * (plan * np.log(plan / (a[:, None] * b[None]))).sum()


def test_it_is_the_divergence_of_the_plain_iteration():
    first, second = clouds(), clouds(points=9, seed=1) + 0.5
    found = sinkhorn_divergence(first, second, blur=1.0, scaling=0.9)
    for number in range(2):
        a, b = first[number].numpy(), second[number].numpy()
        both = [direct_transport(*pair, 1.0) for pair in ((a, b), (a, a), (b, b))]
        np.testing.assert_allclose(float(found[number]), both[0] - both[1] / 2 - both[2] / 2, rtol=1e-2)


def test_with_little_blur_it_is_the_cost_of_the_best_assignment():
    first, second = clouds(), clouds(seed=1)
    found = sinkhorn_divergence(first, second, blur=0.02, scaling=0.95)
    for number in range(2):
        cost = 0.5 * torch.cdist(first[number], second[number]).square().numpy()
        rows, columns = linear_sum_assignment(cost)
        np.testing.assert_allclose(float(found[number]), cost[rows, columns].mean(), rtol=0.02)


def test_a_cloud_is_at_0_from_its_own_points_in_another_order_and_nothing_pulls_at_them():
    """Which is why a batch and its own shuffle say nothing."""
    first = clouds().requires_grad_()
    second = first[:, torch.randperm(12, generator=torch.Generator().manual_seed(3))]
    found = sinkhorn_divergence(first, second)
    found.sum().backward()
    assert float(found.detach().abs().max()) < 1e-9
    assert float(first.grad.abs().max()) < 1e-9


def test_its_gradient_brings_clouds_together():
    first, second = clouds().requires_grad_(), clouds(seed=1) + 2
    before = sinkhorn_divergence(first, second, 0.2)
    before.sum().backward()
    moved = first.detach() - 6 * first.grad  # the gradient of a point has the weight 1 / 12
    assert (sinkhorn_divergence(moved, second, 0.2) < 0.5 * before.detach()).all()
    # against finite differences
    shifted = first.detach().clone()
    shifted[0, 4, 1] += 1e-4
    slope = (sinkhorn_divergence(shifted, second, 0.2, 0.95) - sinkhorn_divergence(first, second, 0.2, 0.95))[0] / 1e-4
    np.testing.assert_allclose(float(slope.detach()), float(first.grad[0, 4, 1]), rtol=0.05)
