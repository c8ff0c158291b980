import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.reverse_distillation import ReverseDistillation
from iadbe.errors import BadConfig


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(ReverseDistillation(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=25, batch=8)


@pytest.mark.parametrize(
    ("backbone", "layers", "side"),
    [
        ("tf_efficientnet_lite0", (1, 2, 3), 64),
        ("tf_efficientnet_lite0", (1, 3), 72),
        ("mobilenetv3_small_050", (1, 2, 3), 70),
    ],
)
def test_the_student_reconstructs_every_layer_in_its_shape(backbone, layers, side):
    detector = ReverseDistillation(backbone, layers, "none")
    teacher = detector.backbone(torch.rand(2, 3, side, side))
    reconstructed = detector.student(teacher)
    assert [d.shape for d in reconstructed] == [t.shape for t in teacher]
    embedded = detector.student.embedding[0].branch[0]
    assert embedded.in_channels == len(layers) * detector.backbone.channels[-1]
    assert detector.student.embedding[-1].branch[-2].out_channels == 2 * detector.backbone.channels[-1]


def test_the_papers_teacher_gets_the_papers_student():
    detector = ReverseDistillation(**{**ReverseDistillation.paper_params, "weights": "none"})
    student = detector.student
    assert [len(up[-1]) for up in student.decoder] == [3, 4, 6]  # 256, 128 and 64 planes, four times as many channels
    widths = [[b.branch[3].in_channels for b in up[-1]] for up in student.decoder]
    assert widths == [[512] * 3, [256] * 4, [128] * 6]
    assert [up[-1][-1].branch[-2].out_channels for up in student.decoder] == [1024, 512, 256]
    assert [type(up[-1][-1].end) for up in student.decoder] == [nn.ReLU] * 3
    assert (len(student.embedding), student.embedding[0].branch[0].in_channels) == (3, 3072)
    assert student.embedding[0].branch[0].out_channels == 1024
    assert student.embedding[-1].branch[-2].out_channels == 2048
    steps = [[m.out_channels for m in down if isinstance(m, nn.Conv2d)] for down in student.fusion]
    assert steps == [[512, 1024], [1024], []]


def test_the_student_sees_the_embedding_only():
    detector = ReverseDistillation("resnet10t", weights="none")
    student = detector.student.eval()
    student.embedding = nn.Sequential(student.embedding, _Zeros())
    a, b = (student(detector.backbone(torch.rand(1, 3, 64, 64))) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class _Zeros(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def test_the_training_loss_falls_and_the_teacher_stays_frozen(fitted):
    detector, losses = fitted
    assert len(losses) == 25 * 2
    assert losses[0] == pytest.approx(3, abs=0.3)  # unrelated directions, three layers
    assert np.mean(losses[-4:]) < 0.25 * losses[0]
    fresh = ReverseDistillation().backbone.state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in detector.backbone.state_dict().items())


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_the_map_is_the_sum_of_the_layers_errors(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    detector.sigma, sigma = 0.0, detector.sigma
    expected = torch.zeros(2, 64, 64)
    with torch.no_grad():
        teacher = detector.backbone(shown)
        for t, s in zip(teacher, detector.student(teacher), strict=True):
            error = 1 - (t * s).sum(1) / (t.norm(dim=1) * s.norm(dim=1))
            expected += F.interpolate(error[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    found = detector.predict(shown)
    detector.sigma = sigma
    torch.testing.assert_close(found.map, expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_scores_do_not_depend_on_train_or_eval_mode(fitted):
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    expected = detector.predict(shown).score
    detector.train()
    assert torch.equal(detector.predict(shown).score, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "must all be above 0"),
        ({"learning_rate": 0.0}, "must all be above 0"),
        ({"layers": (2, 1)}, "the finest first"),
        ({"layers": (1, 1)}, "once each"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(BadConfig, match=message):
        ReverseDistillation(**{"backbone": "resnet10t", "weights": "none", **wrong})


@pytest.mark.slow
def test_real_bottles():
    """Two epochs at 128 pixels, of the paper's two hundred."""
    train, test = bottles(View(128))
    detector, _ = trained(train, epochs=2)
    assert image_auroc(detector, test) > 0.9
