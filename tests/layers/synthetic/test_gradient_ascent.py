import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iadbe.layers.blocks.discriminator import Discriminator
from iadbe.layers.synthetic.gradient_ascent import ascended, projected


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(count=40, dim=6, seed=0):
    return torch.randn(count, dim, generator=source(seed))


def made(dim=6, width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Discriminator(dim, width).train()


def plainly(discriminator, normal, noisy, steps, length, project):
    """The authors' loop in its own words: all of the discriminator, on both parts, in every step."""
    body = nn.Sequential(discriminator.hidden, discriminator.norm, nn.LeakyReLU(0.2), discriminator.out, nn.Sigmoid())
    for number in range(steps):
        leaf = noisy.detach().requires_grad_()
        score = body(torch.cat([normal, leaf]))[len(normal) :]
        gradient = torch.autograd.grad(F.binary_cross_entropy(score, torch.ones_like(score)), leaf)[0]
        noisy = noisy + length * gradient / (gradient.norm(dim=1, keepdim=True) + 1e-10)
        if (number + 1) % 5 == 0:
            noisy = project(noisy)
    return noisy


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_it_is_the_plain_loop(steps):
    normal, start = rows(), rows() + 0.5 * rows(seed=1)
    one, two = made(), copy.deepcopy(made())
    low = torch.tensor(0.5)

    def project(points):
        return projected(points, normal, low, 2 * low)

    found = ascended(one, normal, start, steps, 0.05, project)
    expected = plainly(two, normal, start, steps, 0.05, project)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, start, atol=0.02)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # running statistics too
    assert all(p.grad is None for p in one.parameters())


def test_the_ascent_follows_the_gradient_of_the_loss():
    """Towards a higher loss: features that the discriminator takes for normal."""
    normal, start = rows(), rows() + rows(seed=1)
    discriminator = made()
    moved = ascended(copy.deepcopy(discriminator), normal, start, 4, 0.1, lambda points: points)
    with torch.no_grad():
        before, after = (
            float(F.softplus(-discriminator(torch.cat([normal, points]))[len(normal) :]).mean())
            for points in (start, moved)
        )
    assert after > before


def test_gradients_flow_to_the_start():
    normal, start = rows(), (rows() + 1).requires_grad_()
    found = ascended(
        made(), normal, start, 5, 0.05, lambda p: projected(p, normal, torch.tensor(0.5), torch.tensor(1.0))
    )
    found.square().sum().backward()
    assert float(start.grad.abs().max()) > 0


def test_projected_points_are_at_the_nearest_allowed_distance():
    origin = rows()
    points = origin + F.normalize(rows(seed=2)) * torch.linspace(0.15, 4.05, 40)[:, None]
    found = projected(points, origin, torch.tensor(1.0), torch.tensor(2.0))
    for point, start, moved in zip(points, origin, found, strict=True):
        far = float((point - start).norm())
        allowed = min(max(far, 1.0), 2.0)
        torch.testing.assert_close(moved, start + (point - start) / far * allowed, rtol=1e-4, atol=1e-5)
    near = (found - points).norm(dim=1) < 1e-5
    assert torch.equal(near, ((points - origin).norm(dim=1) > 1) & ((points - origin).norm(dim=1) < 2))


def test_no_steps_change_nothing():
    start = rows()
    assert ascended(made(), rows(), start, 0, 0.1, lambda p: p) is start
