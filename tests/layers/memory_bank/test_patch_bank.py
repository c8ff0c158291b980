from dataclasses import replace

import numpy as np
import pytest
import torch

from drawn_images import Drawn, images, parts
from iadbe.data.images import Images, View
from iadbe.layers.features.views import rotated
from iadbe.layers.memory_bank import patch_bank
from iadbe.layers.memory_bank.coreset import distances_to, greedy_coreset
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.types import TrainingImage


def embed(batch):
    """Five values of each 8 x 8 block: the colours' means, and two of their squares."""
    mean = torch.nn.functional.avg_pool2d(batch.image, 8)
    return torch.cat([mean, mean[:, :2].square()], 1)


def collect(projection=0, count=20):
    return PatchBank(images(parts(count), View(64)), embed, projection, torch.Generator().manual_seed(0))


def everything(count=20):
    one = torch.cat([embed(b) for b in images(parts(count), View(64)).batches(3)])
    return one.permute(0, 2, 3, 1).reshape(-1, 5)


def test_vectors_come_position_after_position_image_after_image():
    found = collect()
    assert found.grid == (8, 8)
    assert found.images == 20
    torch.testing.assert_close(found.projected, everything())


def test_projected_vectors_are_linear_in_the_vectors():
    found = collect(3)
    assert found.projected.shape == (20 * 64, 3)
    torch.testing.assert_close(found.projected, collect(3).projected)
    rest = torch.linalg.lstsq(everything(), found.projected).solution  # linear in the vectors
    torch.testing.assert_close(everything() @ rest, found.projected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("held", [2**30, 0])
@pytest.mark.parametrize("projection", [0, 3, 5])
def test_taken_vectors_are_full_and_in_the_requested_order(held, projection, monkeypatch):
    monkeypatch.setattr(patch_bank, "MEMORY", held)
    chosen = torch.tensor([700, 3, 1279, 0, 64])
    torch.testing.assert_close(collect(projection).take(chosen), everything()[chosen])


def half_counts(batch):
    """Return a batch of which the left half counts."""
    region = torch.zeros(len(batch), 64, 64, dtype=torch.bool)
    region[:, :, :32] = True
    return replace(batch, region=region)


def test_several_views_of_an_image_are_embedded_with_their_regions():
    views = [lambda batch: batch, lambda batch: rotated(half_counts(batch), 180)]
    found = PatchBank(images(parts(20), View(64)), embed, 0, torch.Generator(), views)
    assert len(found.projected) == 2 * 20 * 64
    first = next(images(parts(20), View(64)).batches(16))
    torch.testing.assert_close(found.projected[16 * 64 : 17 * 64], embed(rotated(first, 180))[0].flatten(1).T)
    counts = found.counts.view(-1, 8, 8)
    assert counts[:16].all()  # of the first batch: as they are
    assert not counts[16:32, :, :4].any()  # turned by half
    assert counts[16:32, :, 4:].all()
    assert found.counts[found.coreset(0.1, np.random.default_rng(0))].all()


def test_the_coreset_is_the_greedy_one_from_a_drawn_start():
    found = collect()
    chosen = found.coreset(0.1, np.random.default_rng(3))
    start = int(np.random.default_rng(3).integers(20 * 64))
    assert chosen.tolist() == greedy_coreset(everything(), 128, start=start).tolist()


def test_the_approximate_coreset_starts_from_mean_distances():
    chosen = collect().coreset(0.05, np.random.default_rng(3), "approximate")
    rng = np.random.default_rng(3)
    rng.integers(20 * 64)
    anchors = rng.choice(20 * 64, 10, replace=False)
    start = torch.stack([distances_to(everything(), everything()[a]) for a in anchors]).mean(0)
    assert chosen.tolist() == greedy_coreset(everything(), 64, start=start).tolist()


def test_a_random_coreset_holds_each_vector_at_most_once():
    chosen = collect().coreset(0.5, np.random.default_rng(3), "random")
    assert len(chosen.unique()) == len(chosen) == 640
    assert chosen.tolist() != sorted(chosen.tolist())


@pytest.mark.parametrize("selection", ["greedy", "approximate", "random"])
def test_a_coreset_may_be_chosen_among_some_vectors(selection):
    among = torch.arange(7, 1280, 9)  # 142 of 1280
    chosen = collect().coreset(0.05, np.random.default_rng(3), selection, among)
    assert len(chosen) == 64
    assert set(chosen.tolist()) <= set(among.tolist())
    assert sorted(collect().coreset(1.0, np.random.default_rng(3), selection, among).tolist()) == among.tolist()


def test_a_coreset_has_one_vector_at_least():
    assert len(collect().coreset(1e-9, np.random.default_rng(3))) == 1


def test_patches_that_do_not_count_are_never_chosen():
    half = np.zeros((64, 64), bool)
    half[:, :24] = True

    class Counting(Drawn):
        def region(self, sample):
            return half if sample.id == "001" else None

    dataset = Counting(parts(3))
    train = Images(dataset, [TrainingImage(s) for s in dataset.samples()], View(64))
    found = PatchBank(train, embed, 0, torch.Generator().manual_seed(0))
    counts = found.counts.view(3, 8, 8)
    assert counts[0].all()
    assert counts[2].all()
    assert counts[1].sum(1).tolist() == [3] * 8
    rng = np.random.default_rng(0)
    assert sorted(found.coreset(1.0, rng).tolist()) == found.counts.nonzero()[:, 0].tolist()
    assert len(found.coreset(0.5, rng)) == round(0.5 * (64 + 24 + 64))
    assert set(found.coreset(0.9, rng, among=torch.arange(64, 128)).tolist()) == {
        64 + 8 * y + x for y in range(8) for x in range(3)
    }
