import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors import musc
from iadbe.detectors.musc import MuSc, lowest_mean, nearest_in_each, rescored
from iadbe.errors import BadConfig

TINY = {"backbone": "test_vit", "layers": (1, 4), "weights": "none"}


def fitted(train, **params):
    detector = MuSc(**params)
    detector.fit(images(train), np.random.default_rng(0))
    return detector


def map_by_loops(features, known, degrees, size, skip=None):
    """Score one image, patch by patch: features and known are lists over layers of (C, h, w) and (N, C, h, w)."""
    total = torch.zeros(size)
    for layer, references in zip(features, known, strict=True):
        normal = [F.layer_norm(x, x.shape) for x in (layer, *references)]
        for degree in degrees:
            pooled = [F.avg_pool2d(x, degree, 1, degree // 2).flatten(1).T for x in normal]  # (P, C)
            own, *others = [x / x.norm(dim=1, keepdim=True) for x in pooled]
            scores = []
            for patch in own:
                nearest = [(patch - other).norm(dim=1).min() for j, other in enumerate(others) if j != skip]
                lowest = sorted(nearest)[: max(1, int(0.3 * len(nearest)))]
                scores.append(sum(lowest) / len(lowest))
            grid = torch.stack(scores).view(1, 1, *layer.shape[1:])
            total += F.interpolate(grid, size, mode="bilinear")[0, 0]
    return total / (len(features) * len(degrees))


@pytest.mark.parametrize("params", [TINY, {"weights": "none"}])
def test_a_map_equals_a_loop_over_patches(params):
    detector = fitted(parts(7), **params)
    known, new = detector.backbone(batch(parts(7))), detector.backbone(batch(parts(2, seed=1)))
    found = detector.predict(batch(parts(2, seed=1))).map
    for number in range(2):
        expected = map_by_loops([f[number] for f in new], known, (1, 3, 5), (64, 64))
        torch.testing.assert_close(found[number], expected, rtol=1e-3, atol=1e-4)


def test_a_reference_is_left_out_of_its_own_score():
    """Fitted on the test inputs themselves, this is the paper's transductive setting."""
    inputs = parts(7)
    detector = fitted(inputs, **TINY)
    known = detector.backbone(batch(inputs))
    found = detector.predict(batch(inputs[2:3])).map[0]
    torch.testing.assert_close(found, map_by_loops([f[2] for f in known], known, (1, 3, 5), (64, 64), skip=2))
    raw = torch.stack([map_by_loops([f[i] for f in known], known, (1, 3, 5), (64, 64), skip=i).max() for i in range(7)])
    torch.testing.assert_close(detector.scores, raw, rtol=1e-3, atol=1e-4)


def test_an_unlabelled_set_finds_its_own_defects():
    """Four of sixteen unlabelled inputs are dented."""
    inputs = parts(12, side=128) + parts(4, side=128, defective=True)
    detector = fitted(inputs)
    scores = detector.predict(batch(inputs)).score
    assert scores[12:].min() > scores[:12].max()


def test_distances_are_exact_in_chunks_of_any_size(monkeypatch):
    source = torch.Generator().manual_seed(0)
    queries, references = torch.rand(3, 10, 5, generator=source) + 3, torch.rand(4, 7, 5, generator=source) + 3
    expected = (queries[:, :, None, None] - references).norm(dim=-1).amin(-1)
    for chunk in (1, 40, 2**20):
        monkeypatch.setattr(musc, "CHUNK", chunk)
        torch.testing.assert_close(nearest_in_each(queries, references), expected, rtol=1e-3, atol=1e-4)


def test_the_lowest_share_is_averaged():
    distance = torch.arange(10.0).flip(0).view(1, 1, 10)
    none = torch.zeros(1, 10, dtype=torch.bool)
    assert float(lowest_mean(distance, none, 0.3)) == 1.0  # of 0, 1, 2
    assert float(lowest_mean(distance, none, 0.05)) == 0.0
    nearest = none.clone()
    nearest[0, 9] = True  # then nine are left, and two of them are 30 %
    assert float(lowest_mean(distance, nearest, 0.3)) == 1.5
    assert float(lowest_mean(distance, ~none, 0.3)) == 1.0  # there are no others


def test_scores_are_averaged_as_in_the_paper():
    """The paper's similarity matrix, of which each row keeps its k largest values and is scaled to sum 1."""
    source = torch.Generator().manual_seed(1)
    vectors = F.normalize(torch.rand(6, 4, generator=source), dim=1)
    scores = torch.rand(6, generator=source)
    expected = torch.zeros(6)
    for k in (1, 2, 3):
        matrix = vectors @ vectors.T
        matrix[matrix < matrix.sort(1, descending=True).values[:, k - 1 : k]] = 0
        expected += matrix / matrix.sum(1, keepdim=True) @ scores / 3
    similarity = (vectors @ vectors.T).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(rescored(scores, similarity, scores, (1, 2, 3)), expected)


def test_a_window_of_one_changes_nothing_and_a_wide_one_takes_all_images():
    score, known = torch.tensor([1.0]), torch.tensor([3.0, 5.0])
    similarity = torch.tensor([[1.0, 0.0]])
    assert float(rescored(score, similarity, known, (1,))) == 1.0
    assert float(rescored(score, similarity, known, (9,))) == 2.0  # similarities 1 (itself), 1 and 0


@pytest.mark.parametrize("wrong", [{"degrees": (2,)}, {"degrees": ()}, {"share": 0}, {"windows": (0,)}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=f"{next(iter(wrong))} "):
        MuSc(weights="none", **wrong)


@pytest.mark.slow
def test_real_bottles_score_one_another():
    """The paper's setting: fitted on every second test image, good or not, and scored on the same."""
    _, test = bottles(View(256))
    test = test.subset(range(0, len(test), 2))
    detector = MuSc(layers=(3,))
    detector.fit(test, np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.95
