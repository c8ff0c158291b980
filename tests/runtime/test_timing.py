"""Times of an exported file, measured in a process of its own."""

import pytest

from exported_models import golden, random_image
from iadbe.errors import RunFailed
from iadbe.exporting.result import write
from iadbe.runtime import timing

pytest.importorskip("onnxruntime")


def test_a_process_of_its_own_is_timed(tmp_path, monkeypatch):
    file = write(golden(), tmp_path / "golden.onnx").file
    found = timing.measure(file, random_image(50, 60), "onnxruntime", threads=1, runs=25)
    assert (found.engine, found.threads, found.runs) == ("onnxruntime", 1, 25)
    assert (found.height, found.width) == (50, 60)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.cold_start_s > 0.05
    assert found.cold_start_cpu_s > 0.05
    assert found.batch in timing.BATCHES
    assert found.images_per_s > 0
    assert 10e6 < found.peak_bytes < 2e9


def test_a_process_that_fails_is_one_sentence(tmp_path, capfd):
    with pytest.raises(RunFailed, match=r"timing none\.onnx"):
        timing.measure(tmp_path / "none.onnx", random_image(8, 8))
    capfd.readouterr()
