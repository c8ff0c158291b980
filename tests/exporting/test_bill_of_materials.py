"""The bill of materials beside an exported file."""

import hashlib
import json

import pytest

from iadbe.errors import Missing
from iadbe.exporting.bill_of_materials import write
from iadbe.exporting.origins import Origin

ORIGINS = [
    Origin("training data", "mvtec_ad", "CC BY-NC-SA 4.0", "a" * 64),
    Origin("backbone weights", "tf_efficientnet_lite0.in1k: 01 from internet", "apache-2.0", "b" * 64),
    Origin("learnt", "padim", "yours", "c" * 64),
    Origin("code", "iadbe", "Apache-2.0"),
]


def test_it_names_the_file_and_all_that_went_into_it(tmp_path):
    validation = pytest.importorskip("cyclonedx.validation.json", reason="CycloneDX is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    (tmp_path / "a.onnx").write_bytes(b"model")
    file = write([tmp_path / "a.onnx"], ORIGINS, "padim of bottle")
    assert file.name == "a.onnx.cdx.json"
    bill = json.loads(file.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "padim of bottle"
    parts = {(part["type"], part["name"]): part for part in bill["components"]}
    assert parts["file", "a.onnx"]["hashes"][0]["content"] == hashlib.sha256(b"model").hexdigest()
    data = parts["data", "mvtec_ad"]
    assert data["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert data["licenses"] == [{"license": {"name": "CC BY-NC-SA 4.0"}}]
    assert "licenses" not in parts["machine-learning-model", "padim"]
    assert ("library", "torch") in parts
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(file.read_text()) is None


def test_without_the_package_the_way_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("iadbe.exporting.bill_of_materials.find_spec", lambda name: None)
    with pytest.raises(Missing, match="iadbe\\[sign\\]"):
        write([tmp_path / "a.onnx"], [], "")
