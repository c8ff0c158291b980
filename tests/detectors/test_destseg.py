import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors.destseg import DeSTSeg, compared
from iadbe.errors import BadConfig

SHARED = Path(__file__).parents[3] / "shared"
LAST = {"resnet10t": nn.ReLU, "tf_efficientnet_lite0": nn.Identity}
SMALL = {"backbone": "resnet10t", "weights": "none", "width": 8, "batch": 4}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    detector, losses = DeSTSeg(**params), []

    def listen(report):
        if report.phase == "loss":
            losses.append(report.value)

    with progress.listening(listen):
        detector.fit(train, np.random.default_rng(seed))
    return detector, losses


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), width=32, batch=4, steps=100)


def test_the_student_learns_then_the_segmentation_network(fitted):
    """A fifth of the steps for the student, whose three layers start at a cosine of about 0 to the teacher's."""
    _, losses = fitted
    assert len(losses) == 100
    assert losses[0] / 4 == pytest.approx(3, abs=0.4)
    assert np.mean(losses[15:20]) < 0.5 * losses[0]
    assert losses[20] < 1.1  # of another loss: an L1 of one half, and a small focal one
    assert np.mean(losses[-10:]) < 0.5 * losses[20]


def test_a_dent_is_found_and_shown_where_it_is(fitted):
    detector, _ = fitted
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert (bad.score[:, None] > good.score).float().mean() > 0.9
    dark = torch.stack([torch.from_numpy(pixels.max(2) < 40) for pixels in dented])
    inside, outside = bad.map[dark], bad.map[~dark]
    chosen = outside[torch.randperm(len(outside), generator=torch.Generator().manual_seed(0))[:2000]]
    assert (inside[:, None] > chosen).float().mean() > 0.9


def test_each_part_of_the_training_leaves_the_other_network_alone():
    detector, train = DeSTSeg(**SMALL), images(parts(4))
    start = {k: v.clone() for k, v in detector.state_dict().items()}
    detector._denoise(train, 2, np.random.default_rng(0))
    between = {k: v.clone() for k, v in detector.state_dict().items()}
    detector._segment(train, 2, np.random.default_rng(0))
    end = detector.state_dict()
    first = {k.split(".")[0] for k in start if not torch.equal(start[k], between[k])}
    second = {k.split(".")[0] for k in start if not torch.equal(between[k], end[k])}
    assert (first, second) == ({"student"}, {"segmentation"})


def test_the_student_sees_damage_and_is_asked_for_what_was_there():
    """The first loss, by hand: the teacher's features of whole images, the student's of damaged ones."""
    detector, train, heard = DeSTSeg(**SMALL), images(parts(4)), []
    shown, which, damaged, mask = next(detector._damaged(train, 1, np.random.default_rng(5)))
    assert mask.any()
    assert not torch.equal(shown.image[which], damaged)
    student = copy.deepcopy(detector).train()
    expected = 0.0
    for t, s in zip(detector.backbone(shown), student._student(damaged), strict=True):
        apart = t / t.norm(dim=1, keepdim=True) - s.detach() / s.detach().norm(dim=1, keepdim=True)
        expected += 4 * float(apart.square().sum(1).mean()) / 2  # 1 - cosine is half of a squared distance
    with progress.listening(lambda report: heard.append(report.value)):
        detector._denoise(train, 1, np.random.default_rng(5))
    assert next(value for value in heard if value is not None) == pytest.approx(expected, rel=1e-4)


def test_a_step_is_full_though_images_are_few():
    detector = DeSTSeg(**SMALL)
    steps = list(detector._damaged(images(parts(3)), 3, np.random.default_rng(0)))
    assert len(steps) == 3
    for shown, which, damaged, mask in steps:
        assert which.tolist() == [0, 1, 2, 0]
        assert damaged.shape == (4, 3, 64, 64)
        assert torch.equal((damaged != shown.image[which]).any(1, keepdim=True) & ~mask, torch.zeros_like(mask))
    twice = [not torch.equal(damaged[0], damaged[3]) for _, _, damaged, _ in steps]
    assert any(twice)


def test_what_is_compared_sums_up_to_the_cosine_on_the_first_grid():
    generator = torch.Generator().manual_seed(0)
    teacher, student = ([torch.randn(2, c, s, s, generator=generator) for c, s in ((3, 8), (5, 4))] for _ in range(2))
    found = compared(teacher, student)
    assert found.shape == (2, 8, 8, 8)
    torch.testing.assert_close(found[:, :3].sum(1), -F.cosine_similarity(teacher[0], student[0]))
    coarse = -F.cosine_similarity(teacher[1], student[1])[:, None]
    finer = F.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[:, 3:].sum(1, keepdim=True), finer)


def test_the_score_is_the_mean_of_the_highest_pixels(fitted):
    detector, _ = fitted
    found = detector.predict(batch(parts(2, seed=3, defective=True)))
    expected = found.map.flatten(1).sort(1, descending=True).values[:, :100].mean(1)
    torch.testing.assert_close(found.score, expected)
    assert 0 <= float(found.map.min()) <= float(found.map.max()) <= 1


@pytest.mark.parametrize(("layers", "deepest"), [((1, 2, 3), 4), ((2,), 3), ((3, 4), 4)])
def test_the_student_is_one_layer_deeper_than_the_teacher_where_there_is_one(layers, deepest):
    detector = DeSTSeg(**SMALL, layers=layers).eval()
    image = torch.rand(1, 3, 72, 72)
    assert detector.student.ways[-1] == deepest
    shapes = [f.shape for f in detector.backbone(image)]
    assert [f.shape for f in detector._student(image)] == shapes


def test_what_is_drawn_is_rectified_where_the_teachers_layer_is():
    ends = {name: DeSTSeg(name, weights="none", width=8).student.decoder[-1][-1].end for name in LAST}
    assert {name: type(end) for name, end in ends.items()} == LAST


def test_of_a_budget_the_segmentation_network_has_its_part(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    detector, taken = DeSTSeg(**SMALL, steps=1000), {}
    for name, real in (("_denoise", detector._denoise), ("_segment", detector._segment)):

        def run(train, steps, rng, name=name, real=real):
            began = now[0]
            real(train, steps, rng)
            taken[name] = now[0] - began

        monkeypatch.setattr(detector, name, run)
    monkeypatch.setattr("iadbe.detectors.destseg.step", lambda *given: now.__setitem__(0, now[0] + 1))
    with progress.budget(6) as budget:
        detector.fit(images(parts(4)), np.random.default_rng(0))
    assert budget.ended
    assert taken == {"_denoise": 3, "_segment": 3}


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"batch": 1}, {"width": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0, steps and batch at least 2"):
        DeSTSeg("resnet10t", weights="none", **{"width": 8, **wrong})


def test_layers_come_once_each_the_finest_first():
    with pytest.raises(BadConfig, match="the finest first"):
        DeSTSeg("resnet10t", (2, 1), "none")
