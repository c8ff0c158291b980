"""Whether a model's hours resemble its calibration."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from iadbe.errors import BadConfig
from iadbe.monitoring import reference
from iadbe.monitoring.findings import findings
from iadbe.monitoring.monitor import Monitor

START = datetime(2026, 5, 1, 6, tzinfo=UTC)


def _used(folder, light, hours=12, images=40):
    """Keep hours in a model's folder in which the light is multiplied by ``light`` each hour; return the end."""
    rng = np.random.default_rng(0)

    def image(factor=1.0):
        return {"score": float(rng.normal(5, 1)), "brightness": factor * float(rng.normal(0.5, 0.02))}

    reference.write(folder, reference.reference_of([image() for _ in range(100)]))
    time = [START]
    monitor = Monitor(folder, "watch", lambda: time[0])
    for hour in range(hours):
        time[0] = START + timedelta(hours=hour)
        for _ in range(images):
            monitor.record(image(light**hour), "good")
    monitor.flush()
    return START + timedelta(hours=hours)


def test_the_light_has_moved(tmp_path):
    end = _used(tmp_path, 0.99)
    found = findings(tmp_path, now=end)
    assert found.alarm is not None
    assert "2026-05-01T06" < found.alarm < "2026-05-01T15"
    assert found.channels[0].channel == "brightness"
    assert found.channels[0].now < found.channels[0].before
    assert found.p < 0.02
    assert "no longer holds" in found.sentence()
    assert "the light" in found.sentence()
    assert "the scores" not in found.sentence()
    assert findings(tmp_path, now=end).statistics == found.statistics  # draws follow from the data


def test_nothing_has_moved(tmp_path):
    found = findings(tmp_path, now=_used(tmp_path, 1.0))
    assert found.alarm is None
    assert found.images == 480
    assert "still stands: 480 images in 12 hours" in found.sentence()
    assert found.p > 0.01


def test_the_hour_that_is_not_over_does_not_count(tmp_path):
    end = _used(tmp_path, 1.0)
    assert len(findings(tmp_path, now=end - timedelta(minutes=1)).hours) == 11
    assert len(findings(tmp_path, now=end - timedelta(minutes=1), running=True).hours) == 12
    assert "Nothing can be said yet" in findings(tmp_path, now=START).sentence()
    assert findings(tmp_path, now=START).p == 1.0
    assert findings(tmp_path, "predict", now=end).hours == ()


def test_a_new_calibration_starts_anew(tmp_path):
    end = _used(tmp_path, 0.99)
    rng = np.random.default_rng(1)
    reference.write(tmp_path, reference.reference_of([{"score": float(v)} for v in rng.normal(size=30)]))
    assert findings(tmp_path, now=end).hours == ()


def test_a_model_without_calibration_is_one_sentence(tmp_path):
    with pytest.raises(BadConfig, match="at least 20 good images"):
        findings(tmp_path)
