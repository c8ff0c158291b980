"""Counting images by hour, in a model's folder."""

from datetime import UTC, datetime, timedelta

import numpy as np

from iadbe.monitoring import monitor as monitors
from iadbe.monitoring import reference
from iadbe.monitoring.history import FILE, History
from iadbe.monitoring.monitor import Monitor


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.time = datetime(2026, 5, 1, 13, 50, tzinfo=UTC)

    def __call__(self):
        return self.time


def _known(folder):
    rng = np.random.default_rng(0)
    known = reference.reference_of([{"score": float(v), "brightness": float(v)} for v in rng.normal(size=40)])
    reference.write(folder, known)
    return known


def test_images_are_counted_in_their_hour(tmp_path):
    known, clock = _known(tmp_path), Clock()
    monitor = Monitor(tmp_path, "watch", clock)
    monitor.record({"score": 0.0, "brightness": 0.5}, "good")
    monitor.record({"score": 9.0}, "reject")
    clock.time += timedelta(minutes=10)
    monitor.record({"score": float("nan"), "brightness": 0.0}, "")
    monitor.flush()
    first, second = History(tmp_path / FILE).hours(known.key, "watch")
    assert (first.hour, second.hour) == ("2026-05-01T13", "2026-05-01T14")
    assert first.verdicts == {"good": 1, "reject": 1}
    assert first.means == {"score": 4.5, "brightness": 0.5}
    assert second.verdicts == {"none": 1}
    assert set(second.counts) == {"brightness"}


def test_images_are_written_now_and_then(tmp_path, monkeypatch):
    known = _known(tmp_path)
    monkeypatch.setattr(monitors, "EVERY", 3)
    monitor = Monitor(tmp_path, "watch", Clock())
    for _ in range(4):
        monitor.record({"score": 0.0}, "good")
    (hour,) = History(tmp_path / FILE).hours(known.key)
    assert hour.images == 3  # the fourth waits
    monkeypatch.setattr(monitors, "SECONDS", 0.0)
    monitor.record({"score": 0.0}, "good")
    (hour,) = History(tmp_path / FILE).hours(known.key)
    assert hour.images == 5


def test_without_a_calibration_nothing_is_kept(tmp_path):
    monitor = Monitor(tmp_path, "predict")
    monitor.record({"score": 0.0}, "good")
    monitor.flush()
    assert list(tmp_path.iterdir()) == []
    assert monitor.problem == ""


def test_what_cannot_be_written_is_told(tmp_path):
    _known(tmp_path)
    (tmp_path / FILE).mkdir()
    monitor = Monitor(tmp_path, "predict")
    monitor.record({"score": 0.0}, "good")
    monitor.flush()
    assert "do not count for `iadbe drift`" in monitor.problem


def test_a_damaged_reference_is_told_and_nothing_is_counted(tmp_path):
    (tmp_path / reference.FILE).write_text("{")
    monitor = Monitor(tmp_path, "predict")
    monitor.record({"score": 0.0}, "good")
    monitor.flush()
    assert "is damaged" in monitor.problem
    assert not (tmp_path / FILE).exists()
