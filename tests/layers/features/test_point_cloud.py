import numpy as np
import pytest
import torch

from iadbe.layers.features.point_cloud import border_plane, fitted_planes, largest_cluster, plane_distance

DRAWS = torch.rand(100, 10, generator=torch.Generator().manual_seed(0))


def scene(seed=0):
    """Return a cloud (3, 40, 48): a tilted ground with a block on it, noise, and pixels that were not measured."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:40, 0:48] * 0.01
    z = 1 + 0.1 * x - 0.05 * y
    z[14:26, 16:32] -= 0.05
    z += rng.normal(0, 1e-4, z.shape)
    points = np.stack([x, y, z]).astype(np.float32)
    points[:, rng.random(z.shape) < 0.05] = np.nan
    return torch.from_numpy(points)


def test_the_plane_is_that_of_the_ground_whatever_stands_on_the_border():
    points = scene()
    points[2, :6, :12] -= 0.2  # a part that reaches over the border
    plane = border_plane(points, DRAWS, 0.001).numpy()
    expected = np.array([0.1, -0.05, -1, 1]) / np.sqrt(1 + 0.1**2 + 0.05**2)
    np.testing.assert_allclose(plane * np.sign(plane[2]) * -1, expected, atol=2e-3)
    distance = plane_distance(points, torch.from_numpy(plane))
    assert float(distance[30:38, 20:40].nanmean()) < 2e-4
    assert float(distance[16:24, 18:30].nanmean()) == pytest.approx(0.05, rel=0.02)
    assert torch.equal(distance.isnan(), points[2].isnan())


def test_a_plane_by_least_squares_equals_the_smallest_singular_vector():
    points = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for plane, own in zip(fitted_planes(points), points.numpy(), strict=True):
        middle = own.mean(0)
        normal = np.linalg.svd(own - middle)[2][-1]
        assert abs(plane[:3].numpy() @ normal) == pytest.approx(1)
        assert float(plane[:3].numpy() @ middle + plane[3]) == pytest.approx(0, abs=1e-12)


def test_without_three_measured_points_there_is_no_plane():
    points = torch.full((3, 40, 48), torch.nan)
    points[:, 20, 20] = 1.0  # not in the border
    points[:, 0, :2] = 1.0
    assert border_plane(points, DRAWS, 0.01) is None


def test_the_largest_cluster_is_kept_and_what_lies_apart_is_not():
    points = scene()
    keep = torch.zeros(40, 48, dtype=torch.bool)
    keep[14:26, 16:32] = True  # the block
    keep[2:5, 2:6] = True  # a crumb
    keep &= points[0].isfinite()
    kept = largest_cluster(points, keep, 0.02)
    assert torch.equal(kept[10:], keep[10:])
    assert not kept[:10].any()
    assert torch.equal(largest_cluster(points, keep, 1.0), keep)  # one cube holds all
    assert not largest_cluster(points, torch.zeros_like(keep), 0.02).any()
