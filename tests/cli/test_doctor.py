import json

from iadbe.cli import doctor


def test_the_machine_is_reported(iadbe):
    output = iadbe("doctor", "--json")
    assert output.code == 0
    found = json.loads(output.out)
    assert any("torch" in p for p in found["packages"])
    assert any("tf_efficientnet_lite0" in b for b in found["backbones"])
    assert found["problems"] == ["none"]


def test_what_is_missing_is_reported_with_the_command_that_brings_it(iadbe, monkeypatch):
    present = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: "missing" if n in ("distributed", "rich") else present(n))
    output = iadbe("doctor")
    assert output.code == 1
    assert "pip install 'iadbe[dask]'" in output.out
    assert "rich is missing: pip install" in output.out


def test_what_exported_files_take_is_printed_without_torch(iadbe):
    packages, command = json.loads(iadbe("doctor", "--json").out)["without torch"]
    assert {"numpy", "pillow", "onnxruntime"} <= {name.partition(">")[0] for name in packages.split()}
    assert not {"torch", "timm", "scipy"} & {name.partition(">")[0] for name in packages.split()}
    assert doctor.RUNTIME.is_file()
    assert command == f"pip install -r {doctor.RUNTIME}"


def test_it_takes_no_other_words(iadbe):
    assert iadbe("doctor", "--jsno").code == 2
