import math

import pytest
import torch

from iadbe.layers.memory_bank import coreset
from iadbe.layers.memory_bank.coreset import (
    greedy_coreset,
    johnson_lindenstrauss_dim,
    random_projection,
    reference_coreset,
)


def radius(points, chosen):
    """How far the farthest point is from its nearest centre."""
    return float(torch.cdist(points.double(), points[chosen].double(), compute_mode=DIRECT).amin(1).amax())


DIRECT = "donot_use_mm_for_euclid_dist"


def random_points(size, dim, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(size, dim, generator=source) * torch.linspace(2, 0.3, dim)


def test_the_reference_takes_the_farthest_point_and_of_several_the_first():
    line = torch.tensor([[0.0], [4.0], [10.0], [1.0], [6.0]])
    assert reference_coreset(line, 5).tolist() == [0, 2, 1, 4, 3]  # 4 and 6 are equally far at the third step
    assert reference_coreset(line, 3, start=4).tolist() == [4, 0, 2]


CASES = [(1, 3, 1), (2, 2, 2), (7, 1, 7), (40, 5, 11), (300, 16, 60), (900, 24, 250)]


@pytest.mark.parametrize(("size", "dim", "count"), CASES)
@pytest.mark.parametrize("block", [1, 3, 64, 2048])
def test_the_sequence_is_that_of_the_reference_for_any_block_size(size, dim, count, block):
    points, start = random_points(size, dim, seed=size), size // 2
    chosen = greedy_coreset(points, count, start=start, block=block)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == reference_coreset(points, count, start).tolist()


@pytest.mark.parametrize("block", [1, 64, 2048])
def test_it_may_start_from_distances_to_other_points(block):
    """The centres at these distances are not among the points."""
    points, far = random_points(300, 6), random_points(1, 6, seed=5)[0] * 3
    start = coreset.distances_to(points, far)
    chosen = greedy_coreset(points, 40, start=start, block=block)
    with_it = reference_coreset(torch.cat([far[None], points]), 41)
    assert chosen.tolist() == (with_it[1:] - 1).tolist()


def test_blocks_begin_small_and_grow_without_changing_the_sequence(monkeypatch):
    points = random_points(500, 8)
    whole = greedy_coreset(points, 200)
    monkeypatch.setattr(coreset, "MIN_BLOCK", 4)
    assert greedy_coreset(points, 200).tolist() == whole.tolist()


@pytest.mark.parametrize("safety", [0.2, 1.0, 3.0])
def test_a_wrong_pruning_threshold_changes_nothing(monkeypatch, safety):
    points = torch.cat(
        [random_points(500, 8), 0.1 * random_points(500, 8, seed=1) + 5, random_points(20, 8, seed=2).repeat(5, 1)]
    )
    monkeypatch.setattr(coreset, "MIN_BLOCK", 8)
    monkeypatch.setattr(coreset, "SAFETY", safety)
    for count in (9, 300, 700, 1020):
        assert greedy_coreset(points, count).tolist() == reference_coreset(points, count).tolist()


def test_points_in_a_dense_cluster_skip_updates(monkeypatch):
    points = torch.cat([random_points(1000, 6), 0.01 * random_points(9000, 6, seed=1)])
    updates = []
    update = coreset._update
    monkeypatch.setattr(coreset, "_update", lambda *a: (updates.append(len(a[3]) * len(a[4])), update(*a)))
    monkeypatch.setattr(coreset, "MIN_BLOCK", 16)
    chosen = greedy_coreset(points, 600)
    assert sum(updates) < 0.5 * len(points) * 600
    assert chosen.tolist() == reference_coreset(points, 600).tolist()


def test_the_chunk_size_changes_nothing(monkeypatch):
    points = random_points(400, 12)
    whole = greedy_coreset(points, 100)
    monkeypatch.setattr(coreset, "CHUNK", 4 * 100 * 7)
    assert greedy_coreset(points, 100).tolist() == whole.tolist()


def test_an_offset_far_from_the_origin_changes_nothing():
    points = random_points(600, 10) + 1000.0
    chosen = greedy_coreset(points, 150)
    expected = reference_coreset(points, 150)
    assert set(chosen.tolist()) == set(expected.tolist())
    assert radius(points, chosen) == pytest.approx(radius(points, expected), rel=1e-5)


def test_two_clusters_far_apart_are_covered_as_the_definition_covers_them():
    """Squared norms are a million times the squared distances within a cluster: the expanded square is all noise."""
    points = torch.cat([random_points(300, 10, 1) + 1000.0, random_points(300, 10, 2) - 1000.0])
    for count in (2, 40, 200):
        chosen, expected = greedy_coreset(points, count), reference_coreset(points, count)
        assert radius(points, chosen) == pytest.approx(radius(points, expected), rel=0.02)


@pytest.mark.parametrize("block", [5, 2048])
def test_duplicates_come_last_and_every_index_comes_once(block):
    some = random_points(30, 6)
    points = some[torch.randint(30, (120,), generator=torch.Generator().manual_seed(0))]
    kinds = len(points.unique(dim=0))
    chosen = greedy_coreset(points, 120, start=3, block=block)
    assert sorted(chosen.tolist()) == list(range(120))
    assert len(points[chosen[:kinds]].unique(dim=0)) == kinds
    assert torch.equal(
        points[chosen[:kinds]], points[reference_coreset(points, kinds, 3)]
    )  # which of two equal ones is free
    for count in (1, kinds // 2, kinds):
        expected = radius(points, reference_coreset(points, count))
        assert radius(points, greedy_coreset(points, count, block=block)) == pytest.approx(expected)


@pytest.mark.parametrize("block", [4, 2048])
def test_constant_points_are_taken_in_order(block):
    points = torch.full((50, 3), 0.1)
    assert greedy_coreset(points, 9, start=4, block=block).tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8]


def test_points_with_ties_on_a_grid_give_a_greedy_sequence_always_the_same():
    """A chessboard of 12 x 12 has many points equally far."""
    points = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0))
    for count in (2, 3, 5, 9, 30, 144):
        chosen = greedy_coreset(points, count, block=16)
        assert chosen.tolist() == greedy_coreset(points, count, block=16).tolist()
        assert len(set(chosen.tolist())) == count
        _is_greedy(points, chosen)


def _is_greedy(points, chosen):
    """Each was as far from those before it as any point was."""
    table = torch.cdist(points.double(), points.double(), compute_mode=DIRECT)
    for n in range(1, len(chosen)):
        near = table[:, chosen[:n]].amin(1)
        assert near[chosen[n]] == pytest.approx(float(near.amax()), abs=1e-5)


def test_progress_tells_how_many_are_chosen():
    seen = []
    greedy_coreset(random_points(300, 4), 90, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (90, 90)
    assert [d for d, _ in seen] == sorted({d for d, _ in seen})


def test_the_points_stay_as_they_are():
    points = random_points(100, 4)
    before = points.clone()
    greedy_coreset(points, 20)
    assert torch.equal(points, before)


def test_what_cannot_be_chosen_is_refused():
    points = random_points(5, 2)
    with pytest.raises(ValueError, match="coreset of 6"):
        greedy_coreset(points, 6)
    with pytest.raises(ValueError, match="coreset of 0"):
        greedy_coreset(points, 0)
    with pytest.raises(ValueError, match="point 5 of 5"):
        greedy_coreset(points, 2, start=5)
    points[3, 1] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        greedy_coreset(points, 2)


def test_a_projection_keeps_squared_distances_about_as_they_were(monkeypatch):
    points = torch.randn(60, 400, generator=torch.Generator().manual_seed(1))
    found = random_projection(points, 200, torch.Generator().manual_seed(0))
    assert found.shape == (60, 200)
    ratio = torch.pdist(found).square() / torch.pdist(points).square()
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() == pytest.approx(math.sqrt(2 / 200), rel=0.3)  # of chi-squared with 200 degrees, over 200
    monkeypatch.setattr(coreset, "CHUNK", 4 * 400 * 7)
    torch.testing.assert_close(random_projection(points, 200, torch.Generator().manual_seed(0)), found)
    assert not torch.equal(random_projection(points, 200, torch.Generator().manual_seed(5)), found)


def test_a_projection_that_would_not_shrink_is_none():
    points = random_points(10, 8)
    assert torch.equal(random_projection(points, 8, torch.Generator()), points)
    with pytest.raises(ValueError, match="0 dimensions"):
        random_projection(points, 0, torch.Generator())


def test_the_dimension_is_that_of_the_lemma():
    """The values are scikit-learn's johnson_lindenstrauss_min_dim."""
    known = {(100, 0.9): 113, (19_600, 0.9): 244, (78_400, 0.9): 278, (409_600, 0.9): 319, (1000, 0.1): 5920}
    assert {(size, eps): johnson_lindenstrauss_dim(size, eps) for size, eps in known} == known
    with pytest.raises(ValueError, match="eps"):
        johnson_lindenstrauss_dim(10, 1.0)
