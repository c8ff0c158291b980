"""Laws about pixels that do not count: they reach no detector, give no score, and what counts is still found.

Every detector is asked. Images are the toy ones at 64 x 64 with random weights, as in the other laws about detectors.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.errors import Missing
from iadbe.files import region_files
from iadbe.metrics.auroc import AUROC
from iadbe.parameters import complete, needs_with
from iadbe.registry import card, load, names
from iadbe.types import TrainingImage, TrainingLabel
from laws.test_detectors import quick, scored

SMALL = View(64)
EDGE = 128  # the column of an image from which on nothing counts, of 256


class Restricted(Toy):
    """Toy images of which the left half counts, with noise in the right one."""

    def __init__(self, noise: int = 0, depth: bool = False, edge: int = EDGE) -> None:
        super().__init__(depth=depth)
        self.noise, self.edge = noise, edge

    def image(self, sample):
        pixels = super().image(sample).copy()
        if self.noise:
            shape = pixels[:, self.edge :].shape
            pixels[:, self.edge :] = np.random.default_rng(self.noise).integers(0, 256, shape, dtype=np.uint8)
        return pixels

    def region(self, sample):
        counts = np.zeros((self.size, self.size), bool)
        counts[:, : self.edge] = True
        return counts

    def points(self, sample):
        points = super().points(sample)
        if points is not None and self.noise:
            points = points.copy()
            points[:, self.edge :] += np.random.default_rng(self.noise).normal(0, 1, points[:, self.edge :].shape)
        return points


class Whole(Restricted):
    """The images as detectors see them, all of whose pixels count."""

    def image(self, sample):
        return region_files.filled(super().image(sample), super().region(sample))

    def region(self, sample):
        return None


def images(dataset, name, split="train", count=8, view=SMALL):
    own = card("detectors", name)
    needs = needs_with(own, complete(own, {}))
    category = "casting" if "depth" in needs else "metal"
    here = [s for s in dataset.samples() if s.category == category]
    labelled = [s for s in here if s.split == "test" and s.is_anomaly][::5] if "labels" in needs else []
    samples = [s for s in here if s.split == split and s not in labelled]
    items = [TrainingImage(s) for s in samples[:: max(1, len(samples) // count)][:count]]
    if split == "train":
        items += [TrainingImage(s, TrainingLabel.MASKED) for s in labelled]
    return Images(dataset, items, view, depth="depth" in needs)


@pytest.fixture(scope="module", params=names("detectors"))
def name(request):
    try:
        load("detectors", request.param)
    except Missing as error:  # an extra
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def sets(name):
    own = card("detectors", name)
    depth = "depth" in needs_with(own, complete(own, {}))
    return [Restricted(noise, depth) for noise in (0, 1, 2)]


def fitted(name, dataset):
    own = card("detectors", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = load("detectors", name)(**complete(own, quick(name)))
    made.view = SMALL
    made.fit(images(dataset, name), np.random.default_rng(0))
    return made.eval()


@pytest.fixture(scope="module")
def detector(name, sets):
    return fitted(name, sets[0])


def test_what_is_ignored_never_reaches_a_detector(name, sets):
    """So nothing that is learnt can depend on it, whatever the method."""
    for split in ("train", "test"):
        ours, theirs = (next(images(some, name, split, 4).batches(8)) for some in sets[:2])
        assert ours.region is not None
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.region, theirs.region)
        assert ours.keys == theirs.keys
        for one, other in ((ours.depth, theirs.depth), (ours.points, theirs.points)):
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_changing_ignored_pixels_changes_no_score(name, detector, sets):
    (before, maps), (after, other_maps) = (scored(detector, images(some, name, "test", 4)) for some in sets[1:])
    assert torch.isfinite(before).all()
    assert torch.equal(before, after)
    if maps is not None:
        assert torch.equal(maps, other_maps)


def test_what_is_ignored_is_not_learnt(name, detector, sets):
    """Of the same pixels less is learnt where only half of them count, unless the detector's card says why not."""
    whole = fitted(name, Whole(depth=sets[0].gives >= {"depth"}))
    learnt, all_of_it = (dict(some.state_dict()) for some in (detector, whole))
    same = learnt.keys() == all_of_it.keys() and all(
        learnt[key].shape == all_of_it[key].shape and torch.equal(learnt[key], all_of_it[key]) for key in learnt
    )
    assert not same or card("detectors", name).get("whole_image"), "a region changes nothing of what is learnt"


def test_a_defect_within_is_seen(name, detector, sets):
    clean = next(images(sets[0], name, "test", 2).batches(2))
    shown = replace(clean, image=clean.image.clone(), keys=None)
    shown.image[:, :, 24:40, 8:24] = 1 - shown.image[:, :, 24:40, 8:24].round()

    def seen(region):
        with torch.no_grad():
            before, after = (detector.predict(replace(batch, region=region)) for batch in (clean, shown))
        maps = before.map is not None and not torch.equal(before.map[..., :32], after.map[..., :32])
        return maps or not torch.equal(before.score, after.score)

    if not seen(None):
        pytest.skip("after so few steps its network gives the same for every image")
    assert seen(clean.region)


def test_a_highest_score_is_that_of_what_counts(name, detector, sets):
    """Where the score of an image is the highest of its map, pixels that do not count are left out."""
    batch = next(images(sets[0], name, "test", 4).batches(4))
    loud = replace(batch, image=batch.image.clone(), keys=None)
    loud.image[:, :, :, 48:] = torch.rand(4, 3, 64, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, part = detector.predict(replace(loud, region=None)), detector.predict(loud)
    assert torch.isfinite(part.score).all()
    is_highest = whole.map is not None and torch.allclose(whole.score, whole.map.amax((1, 2)), rtol=1e-4)
    if not is_highest or getattr(detector, "top", 1) != 1:  # the mean of several can be the highest by chance
        pytest.skip("its image score is no maximum of its map")
    inside = part.map[:, :, :32].amax((1, 2))
    torch.testing.assert_close(part.score, inside, rtol=1e-4, atol=1e-6)


class Plates(Toy):
    """Grey plates. Defects are squares on the left; every test image has another one right, of a louder colour."""

    def __init__(self, restricted: bool) -> None:
        super().__init__()
        self.restricted = restricted

    def image(self, sample):
        seed = sum(map(ord, sample.id))
        rng = np.random.default_rng(seed)
        pixels = rng.integers(90, 110, (self.size, self.size, 3), dtype=np.uint8)
        if sample.split == "test":
            row, column = rng.integers(0, 192), rng.integers(144, 192)
            pixels[row : row + 64, column : column + 64] = rng.choice([0, 255], 3)
        if sample.is_anomaly:
            pixels[96:160, 32:96] = 160
        return pixels

    def region(self, sample):
        counts = np.zeros((self.size, self.size), bool)
        counts[:, :EDGE] = True
        return counts if self.restricted else None


# What is fitted without training, and scores places. Others would need minutes of training each; the pixels that
# count reach them by the same functions, which the laws above hold for all.
FITTED = ("anomalydino", "golden", "musc", "orthoad", "padim", "patchcore", "softpatch", "spade", "subspacead")


@pytest.mark.parametrize("name", FITTED)
def test_a_defect_is_found_among_changes_that_do_not_count(name):
    """Without the region the changes hide it, so the region is what finds it."""
    own = card("detectors", name)
    found = {}
    for restricted in (True, False):
        dataset = Plates(restricted)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            detector = load("detectors", name)(**complete(own, {}))
        detector.view = View(128)
        detector.fit(images(dataset, name, count=10, view=detector.view), np.random.default_rng(0))
        test = images(dataset, name, "test", 16, detector.view)
        score, _ = scored(detector.eval(), test)
        found[restricted] = AUROC()(np.array([e.sample.is_anomaly for e in test.items]), score.numpy())
    assert found[True] > 0.95, found
    assert found[False] < found[True] - 0.05, found
