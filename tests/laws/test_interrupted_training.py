"""The law of interrupted training: it goes on from a checkpoint, and the final numbers are the same to the bit.

Every detector that trains is interrupted twice, each time in the middle of a step that is drawn for it. What its loop
changes and does not give as ``state`` makes the final numbers differ.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import iadbe
from iadbe import progress
from iadbe.errors import Missing
from iadbe.layers.training.resume import Checkpoints
from iadbe.layers.training.state import learnt_tensors
from iadbe.registry import card, load
from laws.test_detectors import images, make, scored

SHORT = {
    "epochs": 3,
    "batch": 3,
    "steps": 7,
    "size": 64,
}  # several steps in several epochs, the last batch of each smaller


DETECTORS = Path(iadbe.__file__).parent / "detectors"


class Interrupted(Exception):
    """A process is killed."""


def fitted(name, checkpoints=None, until=None):
    """Fit in a process that ends after ``until`` steps; return detector, losses and counts of steps."""
    own = {p.name for p in card("detectors", name).parameters if isinstance(p.default, int)}
    detector, losses = make(name, **{k: v for k, v in SHORT.items() if k in own}), []
    torch.manual_seed(7)  # as in a process of its own

    def hear(report):
        if report.phase == "loss":
            losses.append(report.value)
            if len(losses) == until:
                raise Interrupted

    with progress.listening(hear), progress.counting_steps() as count:
        if checkpoints is None:
            detector.fit(images(name), np.random.default_rng(0))
        else:
            checkpoints.others = (count,)
            with checkpoints.training(detector, "0"):
                detector.fit(images(name), np.random.default_rng(0))
    return detector.eval(), losses, (count.done, count.planned)


TRAINED = [file.stem for file in sorted(DETECTORS.glob("*.py")) if " loop(" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", TRAINED)
def test_training_that_was_interrupted_ends_with_the_same_numbers(name, tmp_path):
    try:
        load("detectors", name)
    except Missing as error:  # an extra
        pytest.skip(str(error))
    whole, losses, count = fitted(name)
    assert len(losses) > 3
    folder, draw = tmp_path / "checkpoints", np.random.default_rng(list(name.encode()))
    first = int(draw.integers(2, len(losses)))
    second = int(draw.integers(1, 3))  # of the steps after that
    for until in (first, second, None):
        checkpoints = Checkpoints(folder, {"run": name}, interval=0)
        try:
            again, rest, again_count = fitted(name, checkpoints, until)
        except Interrupted:
            assert any(folder.iterdir())
    assert len(rest) < len(losses)
    # a sum may be added up in another order where its memory is aligned otherwise; what is learnt is equal to the bit
    assert rest == pytest.approx(losses[len(losses) - len(rest) :], rel=1e-6)
    assert again_count == count
    own, other = learnt_tensors(whole), learnt_tensors(again)
    assert own.keys() == other.keys()
    assert [k for k in own if not torch.equal(own[k], other[k])] == []
    test = images(name, split="test", count=4)
    for a, b in zip(scored(whole, test), scored(again, test), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    checkpoints.remove()
    assert list(tmp_path.iterdir()) == []
