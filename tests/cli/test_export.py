"""`iadbe export`."""

import csv
import subprocess
import sys

import pytest
from PIL import Image

from exported_models import golden, random_image
from iadbe.cli import main
from iadbe.exporting.precision_cost import TooCostly
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
    assert "onnx, openvino, torch" in capsys.readouterr().err


def test_int8_that_costs_too_much_has_a_status_of_its_own(model, capsys, monkeypatch):
    def export(*_, **given):
        assert (given["precision"], given["tolerance"], given["force"]) == ("int8", 0.002, False)
        assert (given["good"], given["bad"]) == (["a"], ["b", "c"])
        raise TooCostly("the AUROC falls")

    monkeypatch.setattr("iadbe.api.export", export)
    words = ["--precision", "int8", "--tolerance", "0.002", "--good", "a", "--bad", "b", "c"]
    assert main(["export", str(model), *words]) == 3
    assert "the AUROC falls" in capsys.readouterr().err


def test_a_precision_that_a_detector_does_not_bear_is_named(model, tmp_path, capsys):
    out = str(tmp_path / "half.onnx")
    assert main(["export", str(model), "--precision", "fp16", "--out", out]) == 1
    assert "golden does not bear fp16" in capsys.readouterr().err


def test_it_asks_for_a_model(capsys):
    assert main(["export"]) == 2
    assert "which model?" in capsys.readouterr().err


WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "scipy"):
    sys.modules[name] = None
from iadbe.cli import main
from iadbe.exporting.precision_cost import TooCostly
sys.exit(main(sys.argv[1:]))
"""


def test_an_exported_file_scores_images_without_torch(model, tmp_path, capsys):
    file = str(tmp_path / "part.onnx")
    assert main(["export", str(model), "--out", file]) == 0
    (tmp_path / "parts").mkdir()
    for number in range(2):
        Image.fromarray(random_image(50, 60, number)).save(tmp_path / "parts" / f"{number}.png")
    capsys.readouterr()
    assert main(["predict", str(model), str(tmp_path / "parts"), "--format", "csv"]) == 0
    expected = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    arguments = ["predict", file, str(tmp_path / "parts"), "--format", "csv"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True)
    found = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["path"] for row in found] == [row["path"] for row in expected], done.stderr
    for own, other in zip(found, expected, strict=True):
        assert own["defective"] == other["defective"]
        assert float(own["score"]) == pytest.approx(float(other["score"]), rel=1e-4)
        assert float(own["scaled"]) == pytest.approx(float(other["scaled"]), abs=1e-4)
    arguments = ["predict", file, str(tmp_path / "parts"), "--out", str(tmp_path / "heat")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True)
    assert "2 heat maps" in done.stdout, done.stderr
    with Image.open(tmp_path / "heat" / "0_overlay.png") as drawn:
        assert drawn.size == (60, 50)


def test_a_file_is_signed_and_its_parts_are_listed(iadbe, workspace, elsewhere, tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    pytest.importorskip("cyclonedx")
    key = ed25519.Ed25519PrivateKey.generate()
    pem, raw = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, raw))
    output = iadbe("export", str(workspace.padim), "--sign", str(tmp_path / "key.pem"), "--sbom")
    assert output.code == 0, output.err
    assert {"padim.onnx", "padim.onnx.sig", "padim.onnx.cdx.json"} < {path.name for path in elsewhere.iterdir()}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "web", "--precision", "fp16"), "a page takes fp32"),
        (("--runtime", "x"), "belongs to --to web"),
        (("--sign", "nowhere.pem"), "cannot be read"),
        (("--allow", "all"), "--allow takes noncommercial or own"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(iadbe, workspace, elsewhere, words, says):
    output = iadbe("export", str(workspace.padim), *words)
    assert output.code in (1, 2), output.err
    assert says in output.err
    assert not list(elsewhere.glob("*.onnx"))
