from pathlib import Path

import numpy as np
import pytest
import torch

from iadbe.data.images import Images, View
from iadbe.datasets.mvtec_ad import MVTecAD
from iadbe.datasets.toy import Toy
from iadbe.detectors.patchcore import PatchCore
from iadbe.errors import BadConfig
from iadbe.evaluation.pixel_truth import ground_truth
from iadbe.layers.features.patches import flattened
from iadbe.layers.memory_bank import patch_bank
from iadbe.metrics.auroc import AUROC
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore
from iadbe.types import TrainingImage

SHARED = Path(__file__).parents[3] / "shared"
TOY = Toy()
SAMPLES = [s for s in TOY.samples() if s.category == "metal" and s.split == "train"][:6]
TRAIN = Images(TOY, [TrainingImage(s) for s in SAMPLES], View(64))


def fitted(**params):
    detector = PatchCore(weights="none", **params)
    detector.view = View(64)
    detector.fit(TRAIN, np.random.default_rng(0))
    return detector


def rows(detector):
    return torch.cat([flattened(detector._patches(b)) for b in TRAIN.batches(4)])


def test_the_bank_is_a_share_of_the_training_patches():
    detector = fitted(coreset=0.25)
    everything = rows(detector)
    assert len(detector.bank) == round(0.25 * len(everything))
    distance = torch.cdist(detector.bank.double(), everything.double()).amin(1)
    assert float(distance.max()) < 1e-4


def test_training_images_have_distance_zero_to_a_bank_of_all_patches():
    detector = fitted(coreset=1.0, neighbours=1)
    score = detector.predict(next(TRAIN.batches(6))).score
    torch.testing.assert_close(score, torch.zeros(6), atol=1e-5, rtol=0)


def test_greedy_selections_cover_better_than_a_random_one():
    radius = {}
    for selection in ("greedy", "approximate", "random"):
        detector = fitted(coreset=0.1, projection=0, selection=selection)
        everything = rows(detector)
        assert len(detector.bank) == len(detector.bank.unique(dim=0)) == round(0.1 * len(everything))
        radius[selection] = float(torch.cdist(everything, detector.bank).amin(1).max())
    assert radius["greedy"] < 0.8 * radius["random"]
    assert radius["approximate"] < 0.8 * radius["random"]


def test_an_unknown_selection_is_refused():
    with pytest.raises(BadConfig, match="greedy, approximate or random, not 'best'"):
        PatchCore(weights="none", selection="best")


@pytest.mark.parametrize("params", [{}, {"projection": 0}, {"embedding": 48}, {"projection": 7}])
def test_reading_the_patches_twice_gives_the_same_bank(params, monkeypatch, tmp_path):
    """Large sets do not fit in memory: the chosen rows are read again, from the feature store where there is one."""
    in_memory = fitted(**params).bank
    monkeypatch.setattr(patch_bank, "MEMORY", 0)
    assert torch.equal(fitted(**params).bank, in_memory)
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        assert torch.equal(fitted(**params).bank, in_memory)
    assert counters.computed == len(TRAIN)


def test_the_score_is_reweighted_by_equation_7():
    """Equation 7 evaluated on single vectors."""
    detector = PatchCore(weights="none", neighbours=3)
    detector.bank = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [9.0, 9.0]])
    patch = torch.tensor([[0.0, -2.0]])
    around = detector.bank[[0, 1, 2]]  # the three nearest to the hit, which is bank point 0
    distances = (patch - around).norm(dim=1)
    weight = 1 - distances[0].exp() / distances.exp().sum()
    found = detector._reweighted(torch.tensor([2.0]), patch, torch.tensor([0]))
    torch.testing.assert_close(found, weight[None] * 2.0)


def test_the_map_of_the_paper_protocol_smooths_squared_distances():
    plain, squared = fitted(sigma=0.0), fitted(sigma=0.0, squared=PatchCore.paper_params["squared"])
    shown = next(TRAIN.batches(2))
    rows_of = flattened(plain._patches(shown))
    distance = torch.cdist(rows_of.double(), plain.bank.double()).amin(1).view(2, 1, 8, 8)
    for detector, power in ((plain, 1), (squared, 2)):
        expected = torch.nn.functional.interpolate(distance**power, (64, 64), mode="bilinear")[:, 0]
        torch.testing.assert_close(detector.predict(shown).map, expected.float(), rtol=1e-3, atol=1e-3)
    assert torch.equal(plain.predict(shown).score, squared.predict(shown).score)


def test_merging_concatenates_the_banks():
    one, two = fitted(coreset=0.1), fitted(coreset=0.2)
    merged = PatchCore(weights="none")
    merged.merge([one, two])
    assert len(merged.bank) == len(one.bank) + len(two.bank)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_an_impossible_coreset_share_is_refused(share):
    with pytest.raises(BadConfig, match="share above 0"):
        PatchCore(weights="none", coreset=share)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "data/mvtec_ad/transistor").is_dir(), reason="the real images are not here")
def test_transistor_with_a_resnet_18():
    """MVTec AD's transistor at 256 x 256 without a crop, layers 2 and 3 of ResNet-18, 10 % of the patches."""
    data = MVTecAD(str(SHARED / "data/mvtec_ad"))
    mine = [s for s in data.samples() if s.category == "transistor"]
    detector = PatchCore("resnet18", (2, 3), str(SHARED / "weights/resnet18_conv1-layer3.pth"))
    detector.fit(
        Images(data, [TrainingImage(s) for s in mine if s.split == "train"], View(256)), np.random.default_rng(0)
    )
    test = Images(data, [TrainingImage(s) for s in mine if s.split == "test"], View(256))
    found = [detector.predict(b) for b in test.batches(8)]
    truth = np.array([e.sample.is_anomaly for e in test.items])
    masks, known, *_ = ground_truth(test)
    assert known.all()
    assert AUROC()(truth, torch.cat([f.score for f in found]).numpy()) >= 0.98
    assert AUROC()(masks, torch.cat([f.map for f in found]).numpy()) >= 0.96
