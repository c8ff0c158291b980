import math

import pytest

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.running import latency
from iadbe.types import TrainingImage

TOY = Toy()
IMAGES = Images(TOY, [TrainingImage(s) for s in TOY.samples() if s.split == "test"][:10], View(32))


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
