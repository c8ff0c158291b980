import pytest
import torch

from iadbe.layers.memory_bank import lof
from iadbe.layers.memory_bank.lof import local_outlier_factor, pairwise_distances


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(points, k):
    """Definitions 3 to 7 of the paper, one point at a time."""
    distances = [[float((p - q).norm()) for q in points] for p in points]
    neighbours = [
        sorted((j for j in range(len(points)) if j != i), key=lambda j: distances[i][j])[:k] for i in range(len(points))
    ]
    k_distance = [distances[i][neighbours[i][-1]] for i in range(len(points))]
    density = [k / sum(max(k_distance[o], distances[i][o]) for o in neighbours[i]) for i in range(len(points))]
    return [sum(density[o] for o in neighbours[i]) / k / density[i] for i in range(len(points))]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_factor_is_that_of_the_definitions(k, monkeypatch):
    monkeypatch.setattr(lof, "CHUNK", 200)
    groups = normal(3, 11, 4)
    found = local_outlier_factor(groups, k)
    for group, factors in zip(groups, found, strict=True):
        assert factors.tolist() == pytest.approx(reference(group.double(), k), rel=1e-5)


def test_an_outlier_has_a_large_factor_and_groups_are_independent():
    groups = normal(2, 30, 8)
    groups[0, 4] += 10
    found = local_outlier_factor(groups, 5)
    assert int(found[0].argmax()) == 4
    assert float(found[0, 4]) > 3
    assert float(found[1].max()) < 2
    torch.testing.assert_close(local_outlier_factor(groups[1:], 5)[0], found[1])


def test_few_points_and_equal_points():
    assert local_outlier_factor(normal(2, 1, 3), 5).tolist() == [[1.0], [1.0]]
    torch.testing.assert_close(local_outlier_factor(normal(1, 2, 3), 5), torch.ones(1, 2))
    torch.testing.assert_close(local_outlier_factor(torch.full((1, 9, 3), 0.1), 5), torch.ones(1, 9))
    pairs = normal(1, 4, 3).repeat(1, 3, 1) + 100
    assert bool(local_outlier_factor(pairs, 5).isfinite().all())


def test_distances_far_from_the_origin_are_exact():
    points = normal(1, 6, 4) + 1000
    torch.testing.assert_close(
        pairwise_distances(points)[0], torch.cdist(points[0].double(), points[0].double()), atol=1e-9, rtol=0
    )
