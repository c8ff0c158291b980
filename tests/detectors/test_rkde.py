import numpy as np
import pytest
import torch
from torch import nn

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors import rkde
from iadbe.detectors.rkde import RKDE, grid, region_map
from iadbe.errors import BadConfig, Missing
from iadbe.running import model_folder


class FakeRCNN(nn.Module):
    """A fake Faster R-CNN: always the same proposals."""

    def __init__(self, boxes, scores):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]), requires_grad=False)
        self.found = {"boxes": torch.tensor(boxes).float().view(-1, 4), "scores": torch.tensor(scores)}

    def forward(self, shown):
        return [self.found for _ in shown]


def fitted(train, **params):
    detector = RKDE(**{"weights": "none", **params})
    detector.fit(images(train), np.random.default_rng(0))
    return detector


@pytest.mark.parametrize("side", [64, 100, 256])
def test_the_grid_covers_the_image_in_three_sizes(side):
    boxes = grid(side, side)
    assert len(boxes) == 15**2 + 7**2 + 3**2
    assert float(boxes.min()) == 0
    assert float(boxes.max()) == pytest.approx(side)
    sizes = (boxes[:, 2:] - boxes[:, :2]).unique(dim=0)
    torch.testing.assert_close(sizes, torch.tensor([[side / 8] * 2, [side / 4] * 2, [side / 2] * 2]))
    cover = torch.zeros(3)
    for index, share in enumerate((1 / 8, 1 / 4, 1 / 2)):
        mine = boxes[(boxes[:, 2] - boxes[:, 0]).sub(side * share).abs() < 1e-3]
        assert region_map(mine, torch.ones(len(mine)), (side, side)).min() == 1
        cover[index] = len(mine)
    assert cover.tolist() == [225, 49, 9]


def test_a_pixel_has_the_largest_score_of_its_regions():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [2, 2, 3, 3], [5, 0, 9, 2]])
    found = region_map(boxes, torch.tensor([1.0, 3.0, 2.0, -1.0]), (8, 8))
    expected = torch.full((8, 8), -1.0)  # the lowest where there is no region
    expected[0:4, 0:4] = 1
    expected[2:6, 2:6] = 3
    torch.testing.assert_close(found, expected)


def test_a_regions_feature_is_the_mean_over_its_box():
    """The layer holds its own coordinates, so a region's feature is its centre."""
    detector = RKDE(weights="none", layer=2)
    shown = batch(parts(1))
    line = torch.arange(8.0) * 8 + 4  # the middle of every cell, in pixels
    place = torch.stack([line.expand(8, 8), line[:, None].expand(8, 8)])[None]
    detector.backbone.forward = lambda _: [place]
    boxes = torch.tensor([[8.0, 16.0, 40.0, 32.0], [12.0, 20.0, 28.0, 52.0]])
    found = detector._features(shown, [boxes])
    torch.testing.assert_close(found, torch.tensor([[24.0, 24.0], [20.0, 36.0]]))


def test_proposals_are_filtered_by_size_overlap_and_number():
    detector = RKDE(weights="none", regions=2, min_size=10)
    boxes = [[0.0, 0, 20, 20], [1, 1, 20, 20], [30, 30, 60, 60], [40, 0, 45, 60], [0, 40, 20, 60]]
    detector.proposer = FakeRCNN(boxes, [0.5, 0.9, 0.7, 0.8, 0.1])
    found = detector._proposals(batch(parts(2)))
    assert len(found) == 2
    torch.testing.assert_close(found[0], torch.tensor([boxes[1], boxes[2]]).float())


def test_an_image_without_a_proposal_is_one_region():
    detector = RKDE(weights="none", regions=2)
    detector.proposer = FakeRCNN([], [])
    assert detector._proposals(batch(parts(1)))[0].tolist() == [[0, 0, 64, 64]]


def test_the_score_is_that_of_the_most_anomalous_region():
    detector = fitted(parts(6))
    shown = batch(parts(2, seed=1))
    boxes = detector._proposals(shown)
    scores = detector.density.negative_log_density(detector._features(shown, boxes)).view(2, -1)
    found = detector.predict(shown)
    torch.testing.assert_close(found.score, scores.amax(1))
    torch.testing.assert_close(found.map.amax((1, 2)), found.score)


def test_a_dent_is_detected_and_localised():
    detector = RKDE()
    detector.fit(images(parts(20, side=128)), np.random.default_rng(0))
    dented = parts(4, seed=3, side=128, defective=True)
    good, bad = detector.predict(batch(parts(10, seed=2, side=128))), detector.predict(batch(dented))
    assert bad.score.min() > good.score.max()
    for pixels, map_ in zip(dented, bad.map, strict=True):
        dark = np.argwhere(pixels.max(2) < 40).mean(0)
        hottest = np.argwhere(map_.numpy() == float(map_.max())).mean(0)
        assert np.hypot(*(dark - hottest)) < 24


def test_kernels_are_sampled_from_many_regions(monkeypatch):
    monkeypatch.setattr(rkde, "MAX_POINTS", 100)
    one, two = (fitted(parts(2)).density.points for _ in range(2))
    assert one.shape == (100, 16)
    assert torch.equal(one, two)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "rcnn.pth"
    torch.save(rkde._proposer(0.1).state_dict(), path)
    return path


def test_weights_name_the_source_of_the_regions(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert RKDE(weights="none").weights().endswith("regions: grid")
    assert RKDE().weights().endswith("regions: grid")  # nothing in the cache
    given = RKDE(proposal_weights=str(weights)).weights()
    assert "regions: Faster R-CNN" in given
    cached = tmp_path / "checkpoints" / rkde.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url.rpartition("/")[2]
    cached.parent.mkdir()
    cached.symlink_to(weights)
    assert RKDE().weights() == given
    assert RKDE(proposals="grid").weights().endswith("regions: grid")


def test_the_proposal_network_is_saved_with_the_model(weights, tmp_path):
    detector = RKDE(proposal_weights=str(weights))
    detector.density.fit(torch.rand(30, 112), 4)
    model_folder.save(tmp_path, detector, "rkde", {"proposal_weights": f"file:{weights.name}#0"})
    again = model_folder.load(tmp_path).detector
    assert again.weights() == detector.weights()
    assert torch.equal(again.density.points, detector.density.points)
    plain = fitted(parts(1))
    again.load_tensors(plain.state_dict())
    assert again.proposer is None


def test_missing_or_damaged_weights_are_refused(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(Missing, match="use proposals=grid"):
        RKDE(proposals="rcnn")
    for content, message in ((b"junk", "cannot be read"), ({"a": torch.ones(1)}, "does not hold")):
        path = tmp_path / "other.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(BadConfig, match=message):
            RKDE(proposal_weights=str(path))


@pytest.mark.parametrize("wrong", [{"components": 0}, {"regions": 0}, {"proposals": "guess"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        RKDE(weights="none", **wrong)


@pytest.mark.slow
def test_the_real_architecture_proposes_regions():
    """With random weights: regions are proposed and lie in the image."""
    detector = RKDE(weights="none", proposals="rcnn", min_size=1)
    (boxes,) = detector._proposals(batch(parts(1)))
    assert 1 < len(boxes) <= 100
    assert float(boxes.min()) >= 0
    assert float(boxes.max()) <= 64


@pytest.mark.slow
def test_real_bottles():
    train, test = bottles(View(128))
    detector = RKDE()
    detector.fit(train.subset(range(0, len(train), 4)), np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.9
