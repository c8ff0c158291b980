import math

import pytest
import torch

from iadbe.layers.training.losses import focal_loss


def test_it_is_the_papers_formula():
    probability, truth = [0.9, 0.2, 0.6, 0.5], [1, 0, 0, 1]
    logits = torch.tensor([math.log(p / (1 - p)) for p in probability])
    for gamma in (0, 2, 4):
        given = [p if t else 1 - p for p, t in zip(probability, truth, strict=True)]
        expected = sum(-((1 - p) ** gamma) * math.log(p) for p in given) / 4
        assert float(focal_loss(logits, torch.tensor(truth), gamma)) == pytest.approx(expected, rel=1e-5)


def test_probabilities_of_0_and_1_are_finite():
    logits = torch.tensor([-200.0, 200.0, 200.0], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 1, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(200 / 3)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.tolist() == pytest.approx([0, 0, 1 / 3])
