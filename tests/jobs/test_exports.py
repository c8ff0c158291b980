import json

import pytest

from iadbe.errors import BadConfig, UnknownName
from iadbe.jobs import exports
from iadbe.jobs.exports import ExportRequest, StoredExport


@pytest.fixture
def run(tmp_path):
    """A run's folder with a model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / exports.CARD).write_text('{"detector": "padim"}')
    return tmp_path


def store(run, to="onnx", precision="fp32", **changed):
    folder = run / exports.FOLDER / f"{to}-{precision}"
    folder.mkdir(parents=True)
    (folder / "padim.onnx").write_bytes(b"12345")
    values = {"file": "padim.onnx", "bytes": 5, "date": "2026-12-01T10:00:00+00:00", "deviation": "", "holds": None}
    values |= {"allowed": ("own",), "model": exports.digest_of(run / "model")}
    exports.describe(folder, StoredExport(to, precision, **{**values, **changed}))
    return folder


def test_what_was_described_is_listed(run):
    folder = store(run, holds=True)
    store(run, "web")
    found = exports.exports_of(run)
    assert [one.name for one in found] == ["onnx-fp32", "web-fp32"]
    assert (found[0].bytes, found[0].holds, found[0].allowed, found[0].is_outdated) == (5, True, ("own",), False)
    assert exports.folder_of(run, "onnx-fp32") == folder


def test_a_model_that_was_calibrated_since_has_outdated_files(run):
    store(run)
    (run / "model" / exports.CARD).write_text('{"detector": "padim", "calibration": {}}')
    assert exports.exports_of(run)[0].is_outdated


@pytest.mark.parametrize("change", [{"to": "torch"}, {"bytes": "5"}, {"allowed": 3}, {"extra": 1}, None])
def test_a_damaged_description_is_left_out(run, change):
    file = store(run) / exports.DESCRIPTION
    given = json.loads(file.read_text())
    file.write_text("{" if change is None else json.dumps({**given, **change}))
    assert exports.exports_of(run) == []


@pytest.mark.parametrize("name", ["../model", "onnx-fp16", "a", "", "..-..", "linked-fp32"])
def test_other_names_have_no_files(run, name, tmp_path):
    (run / exports.FOLDER).mkdir()
    (run / exports.FOLDER / "linked-fp32").symlink_to(tmp_path)
    with pytest.raises(UnknownName, match="no exported files"):
        exports.folder_of(run, name)


def test_a_request_survives_the_queue():
    request = ExportRequest("0123", "openvino", "fp16", ("noncommercial",))
    grid = json.loads(json.dumps(request.as_grid()))
    assert exports.is_export(grid)
    assert not exports.is_export({"detectors": ["padim"]})
    assert exports.request_of(grid) == request
    assert request.name == "openvino-fp16"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "says nothing"),
        ({"export": 3}, "says nothing"),
        ({"export": {"run": "0", "other": 1}}, "says nothing"),
        ({"export": {"run": "0", "to": "tar"}}, "no format 'tar'"),
        ({"export": {"run": "0", "precision": "fp8"}}, "no precision 'fp8'"),
        ({"export": {"run": "0", "to": "web", "precision": "fp16"}}, "web keeps the model's own precision"),
        ({"export": {"run": "0", "allow": ["all"]}}, "no word on licences 'all'"),
    ],
)
def test_what_cannot_be_exported_is_refused(grid, message):
    with pytest.raises(BadConfig, match=message):
        exports.request_of(grid)
