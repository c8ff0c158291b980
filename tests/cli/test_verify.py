"""`iadbe verify`."""

import json

import pytest

from exported_models import golden, random_image
from iadbe.cli import main
from iadbe.exporting.result import write
from iadbe.runtime import verification
from iadbe.runtime.timing import Timing

pytest.importorskip("onnxruntime")
TIMING = Timing("onnxruntime", 1, 70, 90, 0.5, 0.4, 200, 10.0, 12.0, 49.0, 200_000_000, 4, 120.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return str(write(golden(), tmp_path_factory.mktemp("cli") / "golden.onnx", images=[random_image(70, 90)]).file)


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    monkeypatch.setattr(verification, "measure", lambda *given: TIMING)


def test_a_file_passes_and_gets_a_certificate(file, tmp_path, capsys):
    assert main(["verify", file, "--cycle-time", "50ms", "--report", str(tmp_path / "a.html")]) == 0
    out = capsys.readouterr().out
    assert "allowed 50 ms" in out
    assert out.rstrip().endswith("passed")
    assert (tmp_path / "a.html").stat().st_size > 5000


def test_a_cycle_time_that_is_exceeded_fails(file, capsys):
    assert main(["verify", file, "--cycle-time", "0.02s"]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert main(["verify", file, "--cycle-time", "20 ms", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert found["timing"]["p99_ms"] == 49.0


def test_wrong_options_are_one_sentence(file, capsys, tmp_path):
    assert main(["verify"]) == 2
    assert main(["verify", file, "--cycle-time", "fast"]) == 2
    assert "such as 50ms" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "none.onnx")]) == 1
    assert "there is no file" in capsys.readouterr().err
