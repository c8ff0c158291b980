"""Against the definitions, point by point and pair by pair."""

import math

import numpy as np
import pytest
import torch

from iadbe.layers.features.fpfh import fpfh, neighbours, normals, pair_features, simplified_histograms


def cloud(count=60, seed=0):
    """Return points of a wavy sheet in front of the camera, (N, 3) float64."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1, 1, (2, count))
    return torch.from_numpy(np.stack([x, y, 4 + 0.3 * np.sin(3 * x) + 0.2 * y * x], 1))


def unequal_normals(points):
    """Return normals with noise: between equal ones, rounding would decide where a pair starts."""
    noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(1), dtype=points.dtype)
    return torch.nn.functional.normalize(normals(points, *neighbours(points, 12, 9.0)) + 0.1 * noise, dim=1)


def nearest(points, i, count, radius):
    """Return [(distance, index)] of the nearest points within the radius, the point itself first."""
    away = sorted((math.dist(p, points[i]), j) for j, p in enumerate(points) if j != i)
    return [(0.0, i), *[(d, j) for d, j in away if d < radius]][:count]


def direct_pair(p, n, q, m):
    """Return θ, α, φ of one pair as in the paper, or zeros where they are not defined."""
    offset = q - p
    length = np.linalg.norm(offset)
    if length == 0:
        return 0.0, 0.0, 0.0
    if math.acos(abs(n @ offset) / length) > math.acos(abs(m @ offset) / length):
        n, m, offset = m, n, -offset
    u, v = n, np.cross(offset / length, n)
    if np.linalg.norm(v) == 0:
        return 0.0, 0.0, 0.0
    v = v / np.linalg.norm(v)
    w = np.cross(u, v)
    return math.atan2(w @ m, u @ m), v @ m, u @ offset / length


def direct_spfh(points, normal, near):
    """Return the three histograms (33,) of one point, each 100 in all."""
    (_, i), *others = near
    found = np.zeros(33)
    for _, j in others:
        theta, alpha, phi = direct_pair(points[i], normal[i], points[j], normal[j])
        for k, share in enumerate(((theta + math.pi) / (2 * math.pi), (alpha + 1) / 2, (phi + 1) / 2)):
            found[11 * k + min(10, max(0, math.floor(11 * share)))] += 100 / len(others)
    return found


def direct_fpfh(points, normal, count, radius):
    near = [nearest(points, i, count, radius) for i in range(len(points))]
    simple = [direct_spfh(points, normal, n) for n in near]
    found = []
    for i, ((_, _), *others) in enumerate(near):
        around = sum((simple[j] / d**2 for d, j in others if d > 0), np.zeros(33)).reshape(3, 11)
        total = around.sum(1, keepdims=True)
        around = np.divide(100 * around, total, out=np.zeros_like(around), where=total > 0)
        found.append(simple[i] + around.ravel())
    return np.stack(found)


@pytest.mark.parametrize(("count", "radius"), [(8, 0.5), (60, 0.35), (5, 9.0), (90, 9.0)])
def test_histograms_equal_the_definition(count, radius):
    points = cloud()
    normal = unequal_normals(points)
    index, distance = neighbours(points, count, radius)
    found = fpfh(points, normal, index, distance)
    expected = direct_fpfh(points.numpy(), normal.numpy(), count, radius)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-8)
    simple = simplified_histograms(points, normal, index, distance)
    near = nearest(points.numpy(), 7, count, radius)
    np.testing.assert_allclose(simple[7].numpy(), direct_spfh(points.numpy(), normal.numpy(), near), atol=1e-8)


def test_many_points_are_computed_in_parts(monkeypatch):
    points = cloud()
    index, distance = neighbours(points, 8, 0.5)
    normal = normals(points, index, distance)
    whole = fpfh(points, normal, index, distance)
    monkeypatch.setattr("iadbe.layers.features.fpfh.PAIRS", 50)
    torch.testing.assert_close(fpfh(points, normal, index, distance), whole)


def test_normals_are_the_least_axes_of_their_neighbourhoods_and_face_the_camera():
    points = cloud()
    index, distance = neighbours(points, 10, 0.6)
    found = normals(points, index, distance).numpy()
    for i, n in enumerate(found):
        near = [j for _, j in nearest(points.numpy(), i, 10, 0.6)]
        if len(near) < 3:
            np.testing.assert_allclose(n, (0, 0, -1))
            continue
        _, axes = np.linalg.eigh(np.cov(points.numpy()[near].T, bias=True))
        assert abs(n @ axes[:, 0]) == pytest.approx(1, abs=1e-6)
        assert n @ points.numpy()[i] <= 0


def test_histograms_do_not_change_when_the_part_is_turned():
    points = cloud(200)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    turn = turn * torch.det(turn)
    index, distance = neighbours(points, 20, 1.0)
    normal = unequal_normals(points)
    found = fpfh(points, normal, index, distance)
    turned = fpfh(points @ turn.T + 3, normal @ turn.T, *neighbours(points @ turn.T + 3, 20, 1.0))
    close = (found - turned).abs().amax(1) < 1e-6
    assert close.double().mean() > 0.95  # rounding moves single pairs over the edge of a bin


def test_a_plane_has_one_histogram_and_an_edge_another():
    x, y = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    flat = torch.stack([x.flatten(), y.flatten(), torch.full((144,), 50.0)], 1)
    bent = flat.clone()
    bent[:, 2] -= (bent[:, 0] - 6).clamp_min(0)
    found = []
    for points in (flat, bent):
        index, distance = neighbours(points, 9, 2.0)
        found.append(fpfh(points, normals(points, index, distance), index, distance))
    middle, edge = 2 * 12 + 6, 6 * 12 + 6
    torch.testing.assert_close(found[0][middle], found[0][edge])
    torch.testing.assert_close(found[0][middle], found[1][middle])
    assert (found[1][edge] - found[1][middle]).norm() > 20


def test_neighbours_are_the_nearest_with_the_point_itself_first():
    points = cloud(30)
    points[3] = points[4]  # two in one place
    index, distance = neighbours(points, 6, 0.7)
    assert index[:, 0].tolist() == list(range(30))
    assert distance[3, 1] == 0
    for i in range(30):
        expected = [d for d, _ in nearest(points.numpy(), i, 6, 0.7)]
        found = distance[i][distance[i].isfinite()]
        np.testing.assert_allclose(found.numpy(), expected)


def test_single_points_and_pairs_in_one_place_have_no_angles():
    one = torch.tensor([[0.0, 0.0, 1.0]])
    index, distance = neighbours(one, 5, 1.0)
    assert index.tolist() == [[0]]
    assert fpfh(one, normals(one, index, distance), index, distance).tolist() == [[0.0] * 33]
    offset, normal = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    assert all(float(f) == 0 for f in pair_features(offset, normal, normal))
    assert all(float(f) == 0 for f in pair_features(normal, normal, normal))
