"""From Python: whether a model's images still resemble those of its calibration."""

import numpy as np
import pytest

import iadbe
from exported_models import golden
from iadbe.errors import BadConfig
from iadbe.monitoring import reference
from iadbe.monitoring.monitor import Monitor
from iadbe.running import model_folder


def test_a_run_folder_will_do(tmp_path):
    fitted = golden()
    folder = model_folder.save(tmp_path / "model", fitted.detector, "golden", {}, fitted.calibration, {})
    with pytest.raises(BadConfig, match="iadbe calibrate"):
        iadbe.drift(tmp_path)
    rng = np.random.default_rng(0)
    reference.write(folder, reference.reference_of([{"score": float(v)} for v in rng.normal(size=40)]))
    monitor = Monitor(folder, "watch")
    for value in rng.normal(size=30):
        monitor.record({"score": float(value)}, "good")
    monitor.flush()
    assert iadbe.drift(tmp_path).images == 0
    assert iadbe.drift(tmp_path, running=True).images == 30
    assert iadbe.drift(tmp_path, running=True, source="predict").images == 0
