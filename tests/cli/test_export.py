"""`iadbe export`."""

import pytest
from tests.exported_models import golden

from iadbe.cli import main
from iadbe.running import model_folder

pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path):
    fitted = golden()
    return model_folder.save(tmp_path / "model", fitted.detector, "golden", {}, fitted.calibration)


def test_it_writes_a_file_and_compares_it_with_torch(model, tmp_path, capsys):
    assert main(["export", str(model), "--out", str(tmp_path / "part.onnx")]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "part.onnx").is_file()
    assert "scores within" in out
    assert "part.onnx" in out


def test_an_unknown_format_names_the_known_ones(model, capsys):
    assert main(["export", str(model), "--to", "tensorrt"]) == 2
    assert "onnx, torch" in capsys.readouterr().err


def test_it_asks_for_a_model(capsys):
    assert main(["export"]) == 2
    assert "which model?" in capsys.readouterr().err
