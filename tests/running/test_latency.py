import math

import pytest
import torch

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.running import latency
from iadbe.types import TrainingImage

TOY = Toy()
IMAGES = Images(TOY, [TrainingImage(s) for s in TOY.samples() if s.split == "test"][:10], View(32))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No other process is busy."""
    monkeypatch.setattr(latency.system, "other_cores", lambda: lambda: 0.0)
    monkeypatch.setattr(latency.system, "all_cores", torch.get_num_threads)


def times(monkeypatch, *rounds):
    """Let the images of each measurement take these milliseconds; return the list of the batches' sizes."""
    left = [0.0, *(ms for one in rounds for ms in one)]  # the first warms up
    sizes = []

    def timed(detector, batch):
        sizes.append(len(batch))
        return (left.pop(0), 2.0)

    monkeypatch.setattr(latency, "_timed", timed)
    return sizes


def test_the_median_has_a_range_and_cpu_time(monkeypatch):
    sizes = times(monkeypatch, [10, 10, 10, 10, 11, 11, 11, 11])
    found = latency.measure(None, IMAGES)
    assert (found.median_ms, found.range_ms, found.cpu_ms) == (10.5, (10.0, 11.0), 2.0)
    assert sizes == [1] * 9


def test_a_wide_spread_is_measured_again_and_the_narrowest_counts(monkeypatch):
    times(monkeypatch, [10, 90] * 4, [20, 40] * 4, [12] * 8)
    assert latency.measure(None, IMAGES).median_ms == 12.0
    times(monkeypatch, [10, 90] * 4, [20, 40] * 4, [10, 80] * 4, [10, 70] * 4)
    assert latency.measure(None, IMAGES).range_ms == (20.0, 40.0)


def test_it_is_measured_again_while_others_leave_too_few_cores_and_the_quietest_counts(monkeypatch):
    loads = [4.0, 0.8, 0.1]
    monkeypatch.setattr(latency.system, "all_cores", lambda: 4 + torch.get_num_threads() - 1)
    monkeypatch.setattr(latency.system, "other_cores", lambda: lambda: loads.pop(0) + 3)
    times(monkeypatch, [10] * 8, [11] * 8, [12] * 8)
    found = latency.measure(None, IMAGES)
    assert (found.median_ms, found.other_cores) == (12.0, 3.1)
    assert loads == []


def test_of_undisturbed_measurements_the_spread_decides(monkeypatch):
    loads = [0.0, 0.4, 0.3, 0.2]
    monkeypatch.setattr(latency.system, "all_cores", torch.get_num_threads)
    monkeypatch.setattr(latency.system, "other_cores", lambda: lambda: loads.pop(0))
    times(monkeypatch, [10, 90] * 4, [20, 40] * 4, [10, 80] * 4, [10, 70] * 4)
    assert latency.measure(None, IMAGES).range_ms == (20.0, 40.0)


def test_without_images_nothing_is_known():
    found = latency.measure(None, IMAGES.subset([]))
    assert math.isnan(found.median_ms)
    assert found.range_ms == ()


def test_a_real_detector_takes_time():
    class Slow:
        def predict(self, batch):
            return type("P", (), {"score": batch.image.mean((1, 2, 3))})

    low, high = latency.measure(Slow(), IMAGES).range_ms
    assert 0 < low <= high
    assert latency.measure(Slow(), IMAGES).median_ms == pytest.approx(low, rel=50)
