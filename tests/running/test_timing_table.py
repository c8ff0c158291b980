import csv
import math

import numpy as np
import pytest
import torch

from iadbe import progress
from iadbe.data.images import View
from iadbe.detectors.padim import PaDiM
from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import Calibration
from iadbe.running import timing_table
from iadbe.running.model_folder import FittedDetector
from iadbe.types import Prediction

CPU = torch.device("cpu")


class Slow(PaDiM):
    """Counts its calls, and fails where it is told to."""

    def __init__(self, fails=()):
        super().__init__(dims=4, backbone="test_resnet", weights="none")
        self.view, self.calls, self.fails = View(16), 0, fails

    def predict(self, batch):
        self.calls += 1
        if self.calls in self.fails:
            raise RuntimeError("out of memory")
        return Prediction(batch.image.mean((1, 2, 3)), batch.image.mean(1))


def fitted(detector):
    return FittedDetector(detector, "slow", {}, Calibration())


def test_each_size_is_timed_one_image_at_a_time():
    detector, reports = Slow(), []
    with progress.listening(reports.append):
        rows = timing_table.measure(fitted(detector), CPU, ((8, 8), (16, 24)), warmup=2, repeats=3)
    assert detector.calls == 10
    assert [(r.image_height, r.image_width) for r in rows] == [(8, 8), (16, 24)]
    for row in rows:
        assert 0 < row.runtime_min <= row.runtime_mean <= row.runtime_max
        assert math.isnan(row.peak_memory)  # which the protocol measures on a GPU only
    timed = [r for r in reports if r.phase == "timing"]
    assert [(r.done, r.total) for r in timed] == [(n + 1, 10) for n in range(10)]


def test_a_cpu_needs_no_warm_up_and_the_sizes_are_the_protocols():
    detector = Slow()
    rows = timing_table.measure(fitted(detector), CPU, repeats=1)
    assert detector.calls == 3
    assert [tuple(r[:2]) for r in rows] == [(256, 256), (512, 512), (1024, 1224)]
    assert (timing_table.REPEATS, timing_table.WARMUP) == (1000, {"cuda": 1000})


def test_the_time_is_that_of_the_prediction(monkeypatch):
    clock = iter(np.cumsum([0, 2, 10, 4, 10, 9]).astype(float))
    monkeypatch.setattr(timing_table.time, "perf_counter", lambda: next(clock))
    (row,) = timing_table.measure(fitted(Slow()), CPU, ((8, 8),), repeats=3)
    assert (row.runtime_mean, row.runtime_min, row.runtime_max) == (5, 2, 9)
    assert row.runtime_std == pytest.approx(np.std([2, 4, 9]))


def test_a_size_that_fails_is_empty_and_said(tmp_path):
    notes = []
    with progress.collecting_notes(notes):
        rows = timing_table.measure(fitted(Slow(fails=(2,))), CPU, ((8, 8), (16, 16)), repeats=2)
    assert math.isnan(rows[0].runtime_mean)
    assert rows[1].runtime_mean > 0
    assert notes[0].startswith("no timings at 8 x 8: slow cannot score images (RuntimeError: out of memory)")
    timing_table.write(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(timing_table.Timing._fields)
    assert first["runtime_mean"] == first["peak_memory"] == ""
    assert float(second["runtime_mean"]) == pytest.approx(rows[1].runtime_mean, rel=1e-5)


def test_no_repeats_are_refused():
    with pytest.raises(BadConfig, match="timings need at least one repeat"):
        timing_table.measure(fitted(Slow()), CPU, repeats=0)
