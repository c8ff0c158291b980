"""Exported files of stored models: queued as jobs, listed, downloaded, removed."""

import io
import shutil
import zipfile

import pytest

from iadbe.jobs import exports
from iadbe.jobs.exports import StoredExport
from iadbe.running.store import Store


@pytest.fixture
def client(serve, fitted, tmp_path):
    """A server over a copy of the store with a model."""
    shutil.copytree(fitted.store.root, tmp_path / "runs")
    made = serve(Store(tmp_path / "runs"))
    made.run = fitted.run
    made.address = f"/api/v1/models/{fitted.run}/exports"
    made.folder = made.server.run_cache.path(fitted.run)
    return made


def keep(client, to="onnx", precision="fp32"):
    """Put exported files into the run's folder, as a worker does."""
    folder = client.folder / exports.FOLDER / f"{to}-{precision}"
    (folder / "page").mkdir(parents=True)
    (folder / "padim.onnx").write_bytes(b"model")
    (folder / "page" / "index.html").write_bytes(b"page")
    digest = exports.digest_of(client.folder / "model")
    exports.describe(
        folder, StoredExport(to, precision, "padim.onnx", 9, "2026-12-01", "scores within 1e-6", True, (), digest)
    )


def test_an_export_is_a_job_which_waits_once(client):
    answer = client.post(client.address, json={"to": "openvino", "precision": "fp16", "allow": ["noncommercial"]})
    assert answer.status_code == 201
    job = answer.json()
    assert (job["kind"], job["state"], job["title"]) == ("export", "queued", "padim on nut as openvino, fp16")
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert client.post(client.address, json={"to": "openvino", "precision": "fp16"}).json()["id"] == job["id"]
    other = client.post(client.address, json={"options": {"time_limit": 60.0, "threads": 1}}).json()
    assert other["id"] != job["id"]
    listed = client.get(client.address).json()
    assert {one["id"] for one in listed["jobs"]} == {job["id"], other["id"]}
    assert listed["exports"] == []
    assert listed["not_exportable"] == ""
    detail = client.get(answer.headers["Location"]).json()
    assert detail["grid"]["export"] == {
        "run": client.run, "to": "openvino", "precision": "fp16", "allow": ["noncommercial"],
    }  # fmt: skip
    refused = client.get(f"/api/v1/jobs/{job['id']}/grid")
    assert refused.status_code == 400
    assert "exports a model" in refused.json()["detail"]
    client.post(f"/api/v1/jobs/{job['id']}/stop")
    assert {one["id"] for one in client.get(client.address).json()["jobs"]} == {other["id"]}


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"to": "tar"}, 422),
        ({"precision": "fp8"}, 400),
        ({"to": "web", "precision": "fp16"}, 400),
        ({"allow": ["all"]}, 422),
        ({"options": {"device": "cpu"}}, 400),
        ({"options": {"time_limit": -1}}, 400),
        ({"out": "/etc"}, 422),
    ],
)
def test_what_cannot_be_exported_is_refused(client, order, status):
    answer = client.post(client.address, json=order)
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert client.get(client.address).json()["jobs"] == []


def test_a_run_without_a_model_has_no_exports(serve, filled, ids):
    client = serve(filled)
    for answer in (
        client.get(f"/api/v1/models/{ids.of('padim', 'cable')}/exports"),
        client.post(f"/api/v1/models/{ids.of('padim', 'cable')}/exports", json={}),
    ):
        assert answer.status_code == 404
        assert "no stored model" in answer.json()["detail"]


def test_a_detector_that_cannot_be_exported_says_why_at_once(client, monkeypatch):
    monkeypatch.setattr("iadbe.web.exports.why_not_exportable", lambda card, params: "it needs depth")
    assert client.get(client.address).json()["not_exportable"] == "it needs depth"
    answer = client.post(client.address, json={})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "padim cannot be exported: it needs depth."


def test_files_are_listed_downloaded_and_removed(client):
    keep(client)
    (found,) = client.get(client.address).json()["exports"]
    assert (found["name"], found["bytes"], found["holds"], found["is_outdated"]) == ("onnx-fp32", 9, True, False)
    answer = client.get(f"{client.address}/onnx-fp32/download")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        (folder,) = {name.partition("/")[0] for name in archive.namelist()}
        assert archive.read(f"{folder}/padim.onnx") == b"model"
        assert archive.read(f"{folder}/page/index.html") == b"page"
    assert folder.endswith(f"{client.run}-onnx-fp32")
    card = client.folder / "model" / exports.CARD
    card.write_text(card.read_text() + " ")
    assert client.get(client.address).json()["exports"][0]["is_outdated"]
    assert client.delete(f"{client.address}/onnx-fp32").status_code == 204
    assert client.get(client.address).json()["exports"] == []
    for answer in (client.delete(f"{client.address}/onnx-fp32"), client.get(f"{client.address}/onnx-fp32/download")):
        assert answer.status_code == 404
    assert (client.folder / "model" / exports.CARD).exists()


@pytest.mark.parametrize("name", ["..-..", "%2e%2e", "..%2fmodel", "model"])
def test_no_other_folder_is_reached(client, name):
    for answer in (client.get(f"{client.address}/{name}/download"), client.delete(f"{client.address}/{name}")):
        assert answer.status_code in (404, 405, 422)
    assert (client.folder / "model" / exports.CARD).exists()
