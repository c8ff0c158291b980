import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from drawn_images import images
from iadbe import progress
from iadbe.errors import BadDetector
from iadbe.layers.training import resume
from iadbe.layers.training.loop import federated, loop, step
from iadbe.layers.training.resume import Checkpoints, LoopCheckpoint, part, round_ended, rounds_done
from iadbe.layers.training.state import Variables, learnt_tensors

TRAIN = images([np.full((8, 8, 3), 40 * v, np.uint8) for v in range(5)])
NAME = {"run": "3f2a"}


class Interrupted(Exception):
    """A process is killed."""


class Learner(nn.Module):
    """Two loops, which use all that a loop may: dropout, augmentation, momentum, a schedule, buffers, counters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.register_buffer("bank", torch.zeros(0, 3))

    def fit(self, rng, epochs=4, steps=6, until=None, proximal=False):
        self.seen, self.count = [], Variables(calls=0)
        source, own = torch.Generator().manual_seed(5), np.random.default_rng(6)
        optimizer = torch.optim.SGD(self.network.parameters(), 0.1, momentum=0.9)
        rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5], 0.3)
        state = (optimizer, rate, source, own, self.count)
        for how in ({"epochs": epochs}, {"steps": steps}):
            for batch in loop(TRAIN, **how, batch=2, rng=rng, state=state, augment=self.augment):
                x = batch.image.mean((2, 3)) + torch.rand(len(batch), 3, generator=source) + own.random()
                step(optimizer, self.network(torch.cat([x, x + 1])).square().mean())
                rate.step()
                self.count.calls += 1
                self.bank = torch.cat([self.bank, x])
                self.seen.append(batch.id)
                if len(self.seen) == until:
                    raise Interrupted
        return self

    @staticmethod
    def augment(image, generator):
        return image + torch.rand(len(image), 1, 1, 1, generator=generator)


def interrupted(folder, *until, interval=0.0, **how):
    """Fit, killed after these numbers of steps, one process after the other; the last one ends."""
    for number in (*until, None):
        learner, checkpoints = Learner(), Checkpoints(folder, NAME, interval=interval)
        torch.manual_seed(1)
        try:
            with checkpoints.training(learner, "0"):
                learner.fit(np.random.default_rng(0), until=number, **how)
        except Interrupted:
            continue
    return learner, checkpoints


def whole(**how):
    torch.manual_seed(1)
    learner = Learner()
    torch.manual_seed(1)
    return learner.fit(np.random.default_rng(0), **how)


def assert_equal(one, other):
    a, b = learnt_tensors(one), learnt_tensors(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert one.count.state_dict() == other.count.state_dict()


@pytest.mark.parametrize("until", [(1,), (4,), (11,), (12,), (13,), (17,), (5, 3, 1), (1, 1, 1, 1), (14, 2)])
def test_training_goes_on_where_it_was_killed(tmp_path, until):
    """12 steps in the first loop, of 4 epochs with 3 batches, and 6 in the second."""
    learner, checkpoints = interrupted(tmp_path, *until)
    expected = whole()
    assert_equal(learner, expected)
    assert learner.seen == expected.seen[len(expected.seen) - len(learner.seen) :]
    assert len(learner.seen) == 18 - (sum(until) - len(until))  # the step in which it was killed is done again
    assert all(note.startswith("training was interrupted and went on after step") for note in checkpoints.notes)


def test_killed_by_signal_9_in_a_process_of_its_own(tmp_path):
    code = (
        "import sys, os, signal, pathlib; sys.path.insert(0, 'tests'); sys.path.insert(0, 'tests/layers/training')\n"
        "import test_resume as t, numpy as np, torch\n"
        "learner, checkpoints = t.Learner(), t.Checkpoints(pathlib.Path(sys.argv[1]), t.NAME, interval=0)\n"
        "torch.manual_seed(1)\n"
        "try:\n"
        "    with checkpoints.training(learner, '0'):\n"
        "        learner.fit(np.random.default_rng(0), until=8)\n"
        "except t.Interrupted:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    learner, _ = interrupted(tmp_path)
    assert_equal(learner, whole())
    assert len(learner.seen) == 11


def test_without_checkpoints_nothing_is_written(tmp_path):
    learner, checkpoints = interrupted(tmp_path / "none", 3, interval=float("inf"))
    assert_equal(learner, whole())
    assert len(learner.seen) == 18
    assert not (tmp_path / "none").exists()
    assert checkpoints.notes == []


def test_a_short_training_writes_nothing_and_removing_leaves_nothing(tmp_path):
    _, checkpoints = interrupted(tmp_path / "run", interval=resume.INTERVAL)
    assert not (tmp_path / "run").exists()
    _, checkpoints = interrupted(tmp_path / "run", 3)
    assert sorted(f.name for f in (tmp_path / "run").iterdir()) == ["0-0.checkpoint", "0-1.checkpoint"]
    checkpoints.remove()
    assert not (tmp_path / "run").exists()


def test_loops_that_are_not_worth_a_file_are_trained_again_before_one_that_goes_on(tmp_path):
    interrupted(tmp_path, 14)
    (tmp_path / "0-0.checkpoint").unlink()
    learner, _ = interrupted(tmp_path)
    assert_equal(learner, whole())


def damaged(file):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 255
    file.write_bytes(raw)


@pytest.mark.parametrize(
    "harm",
    [
        damaged,
        lambda file: file.write_bytes(file.read_bytes()[:-300]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"not a checkpoint"),
        lambda file: torch.save({"identity": {"run": "another"}}, file),
        lambda file: torch.save([1], file),
        lambda file: torch.save({"identity": NAME, "other": print}, file),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_with_one_warning(tmp_path, harm):
    for until in (8, None):
        learner, checkpoints = Learner(), Checkpoints(tmp_path, NAME, interval=0)
        torch.manual_seed(1)
        if until is None:
            harm(tmp_path / "0-0.checkpoint")
        with warnings.catch_warnings(record=True) as heard, checkpoints.training(learner, "0"):
            warnings.simplefilter("always")
            try:
                learner.fit(np.random.default_rng(0), until=until)
            except Interrupted:
                continue
    assert [str(w.message) for w in heard if "checkpoint of training" in str(w.message)] != []
    assert len(heard) == 1
    assert len(checkpoints.notes) == 1
    assert len(learner.seen) == 18
    assert_equal(learner, whole())


def test_a_detector_of_another_shape_does_not_take_it(tmp_path):
    interrupted(tmp_path, 3)
    other, checkpoints = Learner(), Checkpoints(tmp_path, NAME, interval=0)
    other.network[3] = nn.Linear(4, 2)
    with checkpoints.training(other, "0"), pytest.warns(UserWarning, match=r"network\.3\.weight has another shape"):
        other.fit(np.random.default_rng(0), until=None)
    assert len(other.seen) == 18


def test_what_fits_by_shape_and_cannot_be_taken_is_removed_with_a_sentence(tmp_path):
    learner = Learner()
    for optimizer in (
        torch.optim.SGD(learner.parameters(), 0.1),
        torch.optim.SGD(learner.network[0].parameters(), 0.1),
    ):
        checkpoints = Checkpoints(tmp_path, NAME, interval=0)
        with checkpoints.training(learner, "0"):
            batches = loop(TRAIN, epochs=1, batch=1, rng=np.random.default_rng(0), state=(optimizer,))
            if optimizer.param_groups[0]["params"][0] is learner.network[0].weight and len(list(tmp_path.iterdir())):
                with pytest.raises(BadDetector, match="run it again, which trains from the beginning"):
                    next(batches)
            else:
                next(batches)
                next(batches)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_stops_no_training(tmp_path, monkeypatch):
    def full(values, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume.torch, "save", full)
    with pytest.warns(UserWarning, match="could not be written: .*No space left") as heard:
        learner, checkpoints = interrupted(tmp_path)
    assert len(heard) == 1
    assert len(checkpoints.notes) == 1
    assert list(tmp_path.iterdir()) == []
    assert_equal(learner, whole())


def test_steps_losses_and_time_are_those_of_the_whole_training(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for until in (7, None):
        learner, heard = Learner(), Variables(losses="")
        with progress.counting_steps() as count, progress.budget(50) as budget:
            checkpoints = Checkpoints(tmp_path, NAME, (count, heard), interval=0)

            def hear(report, heard=heard):
                now[0] += report.phase == "loss"
                heard.losses += f"{report.value:.9g} " if report.phase == "loss" else ""

            try:
                with progress.listening(hear), checkpoints.training(learner, "0"):
                    learner.fit(np.random.default_rng(0), until=until)
            except Interrupted:
                now[0] += 1000
                continue
    assert (count.done, count.planned) == (18, 18)
    assert len(heard.losses.split()) == 18
    assert budget.left() == 50 - 18
    assert not budget.ended
    assert checkpoints.earlier["wall"] == 6  # 6 steps in the first process, of which the second repeats nothing


def test_a_loop_that_the_budget_ended_is_ended_for_good(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def hear(report):
        now[0] += report.phase == "loss"

    seen = []
    for _ in range(2):
        learner, count = Learner(), progress.StepCount()
        checkpoints = Checkpoints(tmp_path, NAME, (count,), interval=0)
        with progress.budget(5) as budget, progress.listening(hear), checkpoints.training(learner, "0"):
            learner.fit(np.random.default_rng(0))
        seen.append(len(learner.seen))
        assert budget.ended
    assert seen == [5, 0]


def test_the_display_hears_where_training_goes_on(tmp_path):
    own, heard = Learner(), []
    with pytest.raises(Interrupted), Checkpoints(tmp_path, NAME, interval=0).training(own, "0"):
        own.fit(np.random.default_rng(0), until=5)
    with progress.listening(heard.append):
        interrupted(tmp_path)
    assert [r.done for r in heard if r.phase == "resumed"] == [4]
    assert next(r for r in heard if r.phase == "fit").done == 4


def test_a_slow_disk_gets_fewer_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, NAME)
    assert checkpoints.pause() == 45
    checkpoints._cost = 3.0
    assert checkpoints.pause() == pytest.approx(90)


def test_fedprox_pulls_to_the_parameters_before_the_round(tmp_path):
    def fit(folder, until=None):
        learner = Learner()
        torch.manual_seed(1)
        with Checkpoints(folder, NAME, interval=0).training(learner, "0"), federated(1, 0.5):
            return learner.fit(np.random.default_rng(0), until=until)

    expected = fit(tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", 7)
    assert_equal(fit(tmp_path / "cut"), expected)


def test_a_round_replaces_the_files_of_its_clients(tmp_path):
    learner, rng = Learner(), np.random.default_rng(0)
    with Checkpoints(tmp_path, NAME, interval=0).training(learner, "0"):
        assert rounds_done(rng) == 0
        for number in range(2):
            with part(Learner(), f"round{number}-client0"):
                list(loop(TRAIN, epochs=1, batch=2, rng=rng))
            if number == 0:
                round_ended(rng, 1)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["0-round1-client0-0.checkpoint", "0-rounds.checkpoint"]
    again = Learner()
    checkpoints = Checkpoints(tmp_path, NAME, interval=0)
    with checkpoints.training(again, "0"):
        assert rounds_done(rng) == 1
    assert checkpoints.notes == ["training was interrupted and went on after round 1."]


def test_a_loop_without_checkpoints_is_at_its_beginning():
    at = LoopCheckpoint(np.random.default_rng(0)).restored()
    assert (at.done, at.step, at.finished) == (0, 0, False)
