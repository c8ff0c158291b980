import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors.destseg import DeSTSeg, feature_products
from iadbe.errors import BadConfig

SHARED = Path(__file__).parents[3] / "shared"
LAST = {"resnet10t": nn.ReLU, "tf_efficientnet_lite0": nn.Identity}
SMALL = {"backbone": "resnet10t", "weights": "none", "width": 8, "batch": 4}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(DeSTSeg(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), width=32, batch=4, steps=100)


def test_the_student_is_trained_first_then_the_segmentation_network(fitted):
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
    dent = torch.stack([torch.from_numpy(pixels.max(2) < 40) for pixels in dented])
    inside, outside = bad.map[dent], bad.map[~dent]
    chosen = outside[torch.randperm(len(outside), generator=torch.Generator().manual_seed(0))[:2000]]
    assert (inside[:, None] > chosen).float().mean() > 0.9


def test_each_stage_trains_its_own_network_only():
    detector, train = DeSTSeg(**SMALL), images(parts(4))
    start = {k: v.clone() for k, v in detector.state_dict().items()}
    detector._train_student(train, 2, np.random.default_rng(0))
    between = {k: v.clone() for k, v in detector.state_dict().items()}
    detector._train_segmentation(train, 2, np.random.default_rng(0))
    end = detector.state_dict()
    first = {k.split(".")[0] for k in start if not torch.equal(start[k], between[k])}
    second = {k.split(".")[0] for k in start if not torch.equal(between[k], end[k])}
    assert (first, second) == ({"student"}, {"segmentation"})


def unused():
    """Return an optimizer that no step is made with."""
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)])


def test_the_student_predicts_the_normal_image_from_the_corrupted_one():
    """The first loss, computed independently: teacher on normal images, student on corrupted ones."""
    detector, train, losses = DeSTSeg(**SMALL), images(parts(4)), []
    shown, repeats, corrupted, mask, _ = next(detector._corrupted(train, 1, np.random.default_rng(5), unused()))
    assert mask.any()
    assert not torch.equal(shown.image[repeats], corrupted)
    student = copy.deepcopy(detector).train()
    expected = 0.0
    for t, s in zip(detector.backbone(shown), student._student(corrupted), strict=True):
        difference = t / t.norm(dim=1, keepdim=True) - s.detach() / s.detach().norm(dim=1, keepdim=True)
        expected += 4 * float(difference.square().sum(1).mean()) / 2  # 1 - cosine is half of a squared distance
    with progress.listening(lambda report: losses.append(report.value)):
        detector._train_student(train, 1, np.random.default_rng(5))
    assert next(value for value in losses if value is not None) == pytest.approx(expected, rel=1e-4)


def test_a_step_has_a_full_batch_though_images_are_few():
    detector = DeSTSeg(**SMALL)
    steps = list(detector._corrupted(images(parts(3)), 3, np.random.default_rng(0), unused()))
    assert len(steps) == 3
    for shown, repeats, corrupted, mask, _ in steps:
        assert repeats.tolist() == [0, 1, 2, 0]
        assert corrupted.shape == (4, 3, 64, 64)
        assert torch.equal((corrupted != shown.image[repeats]).any(1, keepdim=True) & ~mask, torch.zeros_like(mask))
    twice = [not torch.equal(corrupted[0], corrupted[3]) for _, _, corrupted, *_ in steps]
    assert any(twice)


def test_feature_products_sum_to_the_cosine_on_the_first_grid():
    generator = torch.Generator().manual_seed(0)
    teacher, student = ([torch.randn(2, c, s, s, generator=generator) for c, s in ((3, 8), (5, 4))] for _ in range(2))
    found = feature_products(teacher, student)
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
    assert detector.student.indices[-1] == deepest
    shapes = [f.shape for f in detector.backbone(image)]
    assert [f.shape for f in detector._student(image)] == shapes


def test_the_decoder_ends_with_a_relu_where_the_teacher_does():
    ends = {name: DeSTSeg(name, weights="none", width=8).student.decoder[-1][-1].end for name in LAST}
    assert {name: type(end) for name, end in ends.items()} == LAST


def test_the_student_gets_half_of_a_time_budget(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    detector, taken = DeSTSeg(**SMALL, steps=1000), {}
    for name, original in (
        ("_train_student", detector._train_student),
        ("_train_segmentation", detector._train_segmentation),
    ):

        def run(train, steps, rng, name=name, original=original):
            began = now[0]
            original(train, steps, rng)
            taken[name] = now[0] - began

        monkeypatch.setattr(detector, name, run)
    monkeypatch.setattr("iadbe.detectors.destseg.step", lambda *given: now.__setitem__(0, now[0] + 1))
    with progress.budget(6) as budget:
        detector.fit(images(parts(4)), np.random.default_rng(0))
    assert budget.ended
    assert taken == {"_train_student": 3, "_train_segmentation": 3}


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"batch": 1}, {"width": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0, steps and batch at least 2"):
        DeSTSeg("resnet10t", weights="none", **{"width": 8, **wrong})


def test_layers_must_be_in_ascending_order():
    with pytest.raises(BadConfig, match="in ascending order"):
        DeSTSeg("resnet10t", (2, 1), "none")
