import pytest
import torch

from iadbe.layers.memory_bank import kmeans as module
from iadbe.layers.memory_bank.kmeans import assign, kmeans


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(centres, each=30, seed=0):
    noise = torch.randn(len(centres), each, centres.shape[1], generator=source(seed))
    return (centres[:, None] + 0.05 * noise).flatten(0, 1)


def test_well_separated_clusters_are_found():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [9.0, 9.0]]) + 100
    for seed in range(5):
        found = kmeans(clusters(centres), 4, source(seed), n_init=3)
        assert float(torch.cdist(centres, found).amin(1).max()) < 0.05


def test_every_centre_is_the_mean_of_what_is_nearest_to_it():
    points = torch.randn(300, 5, generator=source())
    found = kmeans(points, 7, source(1), tol=0.0)
    labels = torch.cdist(points, found).argmin(1)
    means = torch.stack([points[labels == k].mean(0) for k in range(7)])
    torch.testing.assert_close(found, means, atol=1e-4, rtol=1e-4)
    assert torch.equal(found, kmeans(points, 7, source(1), tol=0.0))


def test_more_starts_are_never_worse():
    points = torch.randn(200, 3, generator=source())
    once, often = (assign(points, kmeans(points, 12, source(3), n_init=t))[1].sum() for t in (1, 8))
    assert float(often) <= float(once) + 1e-4


def test_assignment_in_chunks(monkeypatch):
    points, centres = torch.randn(50, 4, generator=source()), torch.randn(6, 4, generator=source(1))
    monkeypatch.setattr(module, "CHUNK", 40)
    labels, squared = assign(points, centres)
    distances = torch.cdist(points.double(), centres.double())
    assert torch.equal(labels, distances.argmin(1))
    torch.testing.assert_close(squared.double(), distances.amin(1).square(), atol=1e-5, rtol=1e-5)


def test_few_or_equal_points():
    points = torch.randn(3, 2, generator=source())
    assert torch.equal(kmeans(points, 5, source()), points)
    assert kmeans(torch.ones(20, 2), 4, source()).tolist() == [[1.0, 1.0]] * 4
    with pytest.raises(ValueError, match="0 centres"):
        kmeans(points, 0, source())
