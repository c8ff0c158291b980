from functools import partial

import pytest
import torch

from iadbe.layers.memory_bank import nearest_neighbours as module
from iadbe.layers.memory_bank.nearest_neighbours import (
    NeighbourIndex,
    nearest_neighbours,
    reference_neighbours,
    squared_distances,
)


def features(size, dim, seed, rank=10, noise=0.05):
    """Draw points near a plane of ``rank`` dimensions, as features of similar images are."""
    source = torch.Generator().manual_seed(seed)
    plane = torch.randn(rank, dim, generator=torch.Generator().manual_seed(7)) * torch.logspace(1, -0.5, rank)[:, None]
    flat = torch.randn(size, rank, generator=source) @ plane / dim**0.5
    return flat + noise * torch.randn(size, dim, generator=source)


def isotropic(size, dim, seed):
    return torch.randn(size, dim, generator=torch.Generator().manual_seed(seed))


def clusters(size, dim, seed):
    """Draw two clusters far from their common mean."""
    return isotropic(size, dim, seed) + torch.where(torch.arange(size) % 2 == 0, 30.0, -30.0)[:, None]


KINDS = [features, partial(features, rank=30, noise=0.5), isotropic, clusters]


def check(bank, queries, k, points):
    distance, index = bank.nearest(queries, k)
    expected, _ = reference_neighbours(queries, points, k)
    assert distance.shape == index.shape == (len(queries), k)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance.double(), expected, rtol=2e-5, atol=1e-6)
    own = (queries[:, None].double() - points[index].double()).square().sum(-1).sqrt()
    torch.testing.assert_close(distance.double(), own, rtol=2e-6, atol=1e-12)
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("components", [0, 1, 8, 20])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_neighbours_are_those_of_the_reference(kind, components, k):
    points, queries = KINDS[kind](1003, 48, 1), KINDS[kind](150, 48, 2)
    check(NeighbourIndex(points, components), queries, k, points)


@pytest.mark.parametrize(("queries", "points", "dim", "k"), [(1, 1, 1, 1), (3, 5, 2, 5), (0, 4, 3, 2), (40, 700, 3, 7)])
@pytest.mark.parametrize("components", [0, 2])
def test_every_shape_works(queries, points, dim, k, components):
    points = isotropic(points, dim, 0)
    check(NeighbourIndex(points, min(components, dim)), isotropic(queries, dim, 1), k, points)


@pytest.mark.parametrize("components", [0, 16])
@pytest.mark.parametrize("k", [1, 3])
def test_a_query_from_the_bank_finds_itself_far_from_the_origin(components, k):
    points = features(2000, 64, 0) + 1000.0
    distance, index = NeighbourIndex(points, components).nearest(points[::7], k)
    assert index[:, 0].tolist() == list(range(0, 2000, 7))
    assert float(distance[:, 0].abs().amax()) == 0
    check(NeighbourIndex(points, components), features(100, 64, 1) + 1000.0, k, points)


@pytest.mark.parametrize("noise", [0.05, 0.0])
def test_reduced_points_answer_nearly_all_queries_near_a_subspace(noise):
    """Otherwise the tests above would pass by comparing everything with everything; without noise bounds are tight."""
    points, queries = features(4000, 64, 0, noise=noise), features(200, 64, 1, noise=noise)
    bank = NeighbourIndex(points, 16)
    for k, share in ((1, 0.9), (5, 0.75)):
        short = bank._reduce(queries)
        found, distance, index, measured = bank._refine(queries, short, module._lower_bounds(short, bank.reduced), k)
        assert found.float().mean() > share
        assert measured < 40 * k * len(queries)
        expected, indices = reference_neighbours(queries[found], points, k)
        torch.testing.assert_close(distance.double(), expected, rtol=2e-5, atol=1e-6)
        assert (index == indices).float().mean() > 0.999


def test_reduced_points_that_exclude_little_are_given_up_after_the_trial(monkeypatch):
    points, queries = isotropic(2000, 40, 0), isotropic(400, 40, 1)
    bank, asked = NeighbourIndex(points, 4), []
    honest = bank._reduce
    monkeypatch.setattr(bank, "_reduce", lambda part: asked.append(len(part)) or honest(part))
    check(bank, queries, 1, points)
    assert asked == [module.TRIAL]


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("components", [6, 24])
def test_a_lower_bound_never_exceeds_the_distance_by_more_than_rounding(kind, components):
    points, queries = KINDS[kind](700, 48, 1), KINDS[kind](90, 48, 2)
    points[:90:2] = queries[::2]
    bank = NeighbourIndex(points, components)
    short = bank._reduce(queries)
    length = short.square().sum(1)
    bound = module._lower_bounds(short, bank.reduced)[:, :700].double() + length[:, None]
    distances, order = reference_neighbours(queries, points, 700)
    true = torch.empty_like(distances).scatter_(1, order, distances).square()
    assert float(((bound - true) / bank._rounding(short)[:, None]).amax()) < 0.5
    whole = module._lower_bounds(queries - bank.centre, bank.table)[:, :700].double() + length[:, None]
    assert float(((whole - true).abs() / bank._rounding(queries - bank.centre)[:, None]).amax()) < 0.5
    assert float((bound / true)[true > 0].mean()) > 0.05  # a bound of 0 would be no bound


@pytest.mark.parametrize("components", [0, 12])
@pytest.mark.parametrize("k", [1, 4])
def test_the_chunk_size_changes_nothing(components, k, monkeypatch):
    points, queries = features(900, 48, 0), features(130, 48, 1)
    bank = NeighbourIndex(points, components)
    whole = bank.nearest(queries, k)
    monkeypatch.setattr(module, "CHUNK", 4 * 900 * 7)
    for answer in (bank.nearest(queries, k), NeighbourIndex(points, components).nearest(queries, k)):
        torch.testing.assert_close(answer[0], whole[0], rtol=1e-5, atol=1e-6)
        assert torch.equal(answer[1], whole[1])


@pytest.mark.parametrize("components", [0, 5])
def test_duplicates_in_the_bank_are_all_neighbours(components):
    points = features(40, 32, 0).repeat(30, 1)
    distance, index = NeighbourIndex(points, components).nearest(points[:40], 9)
    assert float(distance.amax()) == 0
    assert torch.equal(index % 40, torch.arange(40)[:, None].expand(-1, 9))
    assert all(len(set(row)) == 9 for row in index.tolist())


@pytest.mark.parametrize("components", [0, 3])
def test_a_bank_of_equal_points_works(components):
    points = torch.full((300, 8), 0.1)
    distance, _ = NeighbourIndex(points, components).nearest(torch.full((5, 8), 1.1), 2)
    torch.testing.assert_close(distance, torch.full((5, 2), 8**0.5))


def test_an_index_follows_from_its_points():
    points, queries = features(1500, 48, 0), features(60, 48, 1)
    first, second = (
        NeighbourIndex(points, 12).nearest(queries, 3),
        NeighbourIndex(points.clone(), 12).nearest(queries, 3),
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert NeighbourIndex(points).points.data_ptr() == points.data_ptr()  # nothing is copied that need not be


def test_the_function_takes_points_or_an_index():
    points, queries = features(300, 24, 0), features(30, 24, 1)
    plain, ready = nearest_neighbours(queries, points, 2), nearest_neighbours(queries, NeighbourIndex(points, 8), 2)
    torch.testing.assert_close(plain[0], ready[0])
    assert torch.equal(plain[1], ready[1])


def test_reduced_points_are_made_where_they_save_time():
    assert NeighbourIndex(isotropic(3000, 64, 0)).reduced is None
    assert NeighbourIndex(isotropic(500, 512, 0)).reduced is None
    large = NeighbourIndex(features(8000, 384, 0))
    assert large.reduced.shape == (8000, module.COMPONENTS + 2)
    check(large, features(40, 384, 1), 3, large.points)


def test_with_less_precise_products_no_reduced_points_are_used(monkeypatch):
    points, queries = features(900, 48, 0), features(20, 48, 1)
    bank = NeighbourIndex(points, 12)
    monkeypatch.setattr(bank, "_reduce", None)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    check(bank, queries, 1, points)


def test_what_cannot_be_found_is_refused():
    points = isotropic(5, 2, 0)
    with pytest.raises(ValueError, match=r"6 neighbours .* 5 points"):
        nearest_neighbours(points, points, 6)
    with pytest.raises(ValueError, match="0 neighbours"):
        nearest_neighbours(points, points, 0)
    with pytest.raises(ValueError, match=r"\(M, D\), not \(0, 2\)"):
        NeighbourIndex(points[:0])


@pytest.mark.parametrize("k", [1, 3, 40])
def test_the_form_for_export_finds_the_same(k, monkeypatch):
    monkeypatch.setattr(module, "EXPORTED_BLOCK", 32)  # more blocks than one, and fewer points in each than neighbours
    points, queries = features(300, 24, 0), features(30, 24, 1)
    found = module.blockwise_neighbours(queries, points, points.mean(0), k)
    expected = nearest_neighbours(queries, points, k)
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("size", [1, 2, 31, 64, 300, 1000])
def test_the_form_for_export_finds_the_nearest_in_banks_of_any_size(size, monkeypatch):
    monkeypatch.setattr(module, "COLUMNS", 16)
    monkeypatch.setattr(module, "MOST_BLOCKS", 5)
    points, queries = clusters(size, 12, 0), clusters(40, 12, 1)
    found = module.blockwise_neighbours(queries, points, points.mean(0), 1)
    expected = nearest_neighbours(queries, points)
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    itself, place = module.blockwise_neighbours(points, points, points.mean(0), 1)
    assert float(itself.max()) == 0
    assert torch.equal(place[:, 0], torch.arange(size))


def test_squared_distances_are_exact_and_a_graph_gives_them_too():
    class Distances(torch.nn.Module):
        def forward(self, rows):
            return squared_distances(rows, points, 4)

    source = torch.Generator().manual_seed(0)
    rows, points = torch.randn(5, 3, generator=source) + 100, torch.randn(10, 3, generator=source) + 100
    expected = torch.cdist(rows.double(), points.double()).square().float()
    torch.testing.assert_close(squared_distances(rows, points, 4), expected, rtol=1e-4, atol=1e-4)
    program = torch.export.export(Distances(), (rows,), dynamic_shapes={"rows": {0: torch.export.Dim("rows", min=2)}})
    torch.testing.assert_close(program.module()(rows[:4]), expected[:4], rtol=1e-4, atol=1e-4)
