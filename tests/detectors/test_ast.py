import copy

import numpy as np
import pytest
import torch

from drawn_images import batch as batch_of
from drawn_images import images, parts
from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.detectors.ast import AST, likelihood_loss, position
from iadbe.errors import BadConfig, BadDetector
from iadbe.layers.features.foreground import relative_depth
from iadbe.layers.training.loop import step
from iadbe.running import plan
from iadbe.types import TrainingImage

TOY = Toy(depth=True)
SMALL = {"backbone": "resnet10t", "layer": 2, "weights": "none", "width": 8, "hidden": 8, "epochs": 2}


def castings(split="train", count=6, size=64):
    chosen = [s for s in TOY.samples() if s.split == split][-count:]
    return Images(TOY, [TrainingImage(s) for s in chosen], View(size), depth=True)


def fitted(train, seed=0, **params):
    detector = AST(**{**SMALL, **params}).eval()
    detector.fit(train, np.random.default_rng(seed))
    return detector


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_teachers_loss_is_the_likelihood_of_foreground_positions():
    z, log_det, mask = normal(2, 3, 4, 5), normal(2, 4, 5, seed=1), normal(2, 1, 4, 5, seed=2).abs()
    total = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                m = float(mask[b, 0, y, x])
                total += 0.5 * sum(m * float(z[b, c, y, x]) ** 2 for c in range(3)) - float(log_det[b, y, x]) * m
    assert float(likelihood_loss(z, log_det, mask)) == pytest.approx(total / (2 * 4 * 5))


def test_the_score_is_the_largest_masked_distance_of_teacher_and_student():
    detector = fitted(castings(), inputs="both")
    (batch,) = castings("test", 3).batches()
    x, mask = detector._read(batch)
    scaled = (x - detector.standard.mean.view(1, -1, 1, 1)) / detector.standard.deviation.view(1, -1, 1, 1)
    with torch.no_grad():
        target, _ = detector.teacher(scaled, position(x))
        found = detector.student(torch.cat([scaled, position(x).expand(3, -1, -1, -1)], 1))
    distance = ((target - found) ** 2).mean(1) * mask[:, 0]
    map_ = torch.nn.functional.interpolate(distance[:, None], (64, 64), mode="bicubic", align_corners=False)[:, 0]
    prediction = detector.predict(batch)
    torch.testing.assert_close(prediction.map, map_, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.score, map_.amax((1, 2)), rtol=1e-4, atol=1e-5)


def test_depth_enters_in_blocks_of_its_foreground():
    (batch,) = castings(count=2).batches()
    both, depth, rgb = (AST(**SMALL, inputs=i)._read(batch) for i in ("both", "depth", "rgb"))
    size = 8 * rgb[0].shape[-1]
    small, _ = relative_depth(batch.depth, (size, size), 7e-3)
    torch.testing.assert_close(depth[0][1, 8 * 3 + 5, 1, 2], small[1, 0, 8 * 1 + 3, 8 * 2 + 5])
    torch.testing.assert_close(both[0], torch.cat([rgb[0], depth[0]], 1))
    assert (rgb[1] == 1).all()
    assert 0 < both[1].min() < both[1].max() == 1 or both[1].min() == 0


def test_both_networks_learn(monkeypatch):
    losses = []
    monkeypatch.setattr("iadbe.detectors.ast.step", lambda o, loss: losses.append(step(o, loss)))
    fitted(images(parts(8)), epochs=30, learning_rate=2e-3)
    teacher, student = losses[:30], losses[30:]
    assert np.mean(teacher[-5:]) < np.mean(teacher[:5])
    assert np.mean(student[-5:]) < 0.7 * np.mean(student[:5])


def test_the_student_learns_from_a_teacher_that_stays(monkeypatch):
    detector = fitted(images(parts(4)))
    before = copy.deepcopy(detector.teacher.state_dict())
    assert not detector.student.training
    detector.zero_grad()
    optimizer = detector._optimizer(detector.student)
    batch = batch_of(parts(4))
    x, mask = detector._read(batch)
    detector._distance(x, mask).mean().backward()
    optimizer.step()
    assert all(p.grad is None or not p.grad.abs().any() for p in detector.teacher.parameters())
    assert all(torch.equal(before[k], v) for k, v in detector.teacher.state_dict().items())


@pytest.mark.parametrize("inputs", ["depth", "both"])
def test_with_depth_a_score_belongs_to_its_image_and_a_seed_to_its_scores(inputs):
    train, test = castings(), castings("test", 4)
    detector = fitted(train, inputs=inputs)
    whole = torch.cat([detector.predict(b).score for b in test.batches(4)])
    alone = torch.cat([detector.predict(b).score for b in test.batches(1)])
    again = torch.cat([fitted(train, inputs=inputs).predict(b).score for b in test.batches(4)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-6)
    assert torch.equal(whole, again)
    assert torch.isfinite(whole).all()
    twin = AST(**SMALL, inputs=inputs).eval()
    twin.load_tensors(detector.state_dict())
    assert torch.equal(torch.cat([twin.predict(b).score for b in test.batches(4)]), whole)


def test_equal_images_with_other_depth_are_kept_apart():
    detector = AST(**SMALL, inputs="depth")
    (batch,) = castings(count=2).batches()
    from iadbe.layers.training.feature_cache import FeatureCache

    calls = []
    read = FeatureCache(lambda b: calls.append(b) or detector._read(b))
    same = (batch.keys[0],) * 2
    object.__setattr__(batch, "keys", same)
    first = detector._known(read, batch)[0]
    assert torch.equal(first, detector._known(read, batch)[0])
    assert len(calls) == 1
    assert not torch.equal(first[0], first[1])


def test_only_what_uses_depth_needs_it():
    assert AST(**SMALL).needs == {"image"}
    assert AST(**SMALL, inputs="both").needs == {"image", "depth"}
    (batch,) = castings(count=1).batches()
    object.__setattr__(batch, "depth", None)
    with pytest.raises(BadDetector, match="needs depth"):
        AST(**SMALL, inputs="depth").predict(batch)


def test_the_plan_skips_depth_where_there_is_none():
    grid = {"detectors": [{"name": "ast", "sweep": {"inputs": ["rgb", "both"]}}], "protocol": "uniform@64"}
    found = plan.expand({**grid, "data": [{"name": "toy", "categories": ["metal"]}]})
    assert [r.detector_params["inputs"] for r in found.runs] == ["rgb"]
    assert "it needs depth, which neither the data nor the setting gives" in str(found.skipped[0])
    found = plan.expand({**grid, "data": [{"name": "toy", "depth": True}]})
    assert len(found.runs) == 2
    assert not found.skipped


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"inputs": "xyz"}, {"foreground": -1.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        AST(**{**SMALL, **wrong})
