"""`iadbe.verify`: an exported file against torch, without torch."""

import subprocess
import sys
from dataclasses import replace

import pytest

import iadbe
from exported_models import golden, random_image
from iadbe.errors import BadConfig, BadData
from iadbe.exporting.result import write
from iadbe.runtime import references, verification
from iadbe.runtime.timing import Timing

pytest.importorskip("onnxruntime")
TIMING = Timing("onnxruntime", 1, 70, 90, 0.5, 0.4, 200, 10.0, 12.0, 49.0, 200_000_000, 4, 120.0)
WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "scipy"):
    sys.modules[name] = None
import iadbe
print(iadbe.verify(sys.argv[1], runs=1, threads=1).passed)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    images = [random_image(70, 90, seed) for seed in range(3)]
    return write(golden(), tmp_path_factory.mktemp("verify") / "golden.onnx", images=images).file


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    monkeypatch.setattr(verification, "measure", lambda *given: TIMING)


def test_a_good_file_passes(file):
    found = iadbe.verify(file, threads=1)
    assert found.passed
    assert found.deviation.images == 3
    assert [check.name for check in found.checks()] == ["deviation of scores", "deviation of maps", "other verdicts"]
    assert dict(found.figures())["latency, batch 1"].startswith("p50 10.0 ms, p95 12.0 ms, p99 49.0 ms")
    assert {"processor", "onnxruntime", "numpy", "date"} <= found.machine().keys()


@pytest.mark.parametrize(("seconds", "passes"), [(0.05, True), (0.048, False)])
def test_the_cycle_time_is_kept_by_p99(file, seconds, passes):
    assert iadbe.verify(file, cycle_time=seconds).passed is passes


def test_other_scores_maps_and_verdicts_fail(file):
    given, _ = references.read(references.beside(file))
    first, *rest = given.expected
    wrong = replace(first, score=first.score * 1.01, verdict="good", anomaly_map=first.anomaly_map * 1.01)
    archive = replace(given, expected=(wrong, *rest)).write(file.with_name("wrong.npz"), file)
    found = iadbe.verify(file, kept=archive)
    assert [check.holds for check in found.checks()] == [False, False, False]
    assert not found.passed


def test_reference_images_belong_to_one_file(file, tmp_path):
    other = tmp_path / "other.onnx"
    other.write_bytes(file.read_bytes())
    with pytest.raises(BadConfig, match="no reference images"):
        iadbe.verify(other)
    given, _ = references.read(references.beside(file))
    (tmp_path / "model").write_bytes(b"another model")
    archive = given.write(tmp_path / "archive.npz", tmp_path / "model")
    with pytest.raises(BadData, match="belongs to another file"):
        iadbe.verify(other, kept=archive)
    with pytest.raises(BadConfig, match="threads 0 or more"):
        iadbe.verify(file, threads=-1)


def test_it_needs_no_torch(file):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(file)], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
