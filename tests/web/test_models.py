import json
import shutil

import pytest

import fake_results
from iadbe.errors import BadConfig
from iadbe.running.store import Store
from iadbe.web import models
from iadbe.web.models import ModelCache


def test_stored_models_are_listed(serve, fitted):
    client = serve(fitted.store)
    (response,) = client.get("/api/v1/models").json()
    assert (response["id"], response["detector"], response["dataset"], response["task"]) == (
        fitted.run,
        "padim",
        "mvtec_ad",
        "nut",
    )
    assert response["threshold"] > 0
    assert response["bytes"] > 1000
    assert not response["calibrated"]
    assert response["values"]["image_auroc"] == 1.0
    assert client.get(f"/api/v1/models/{fitted.run}").json() == response


def test_newest_models_and_the_requested_one(serve, tmp_path):
    from iadbe.web.models import newest

    store = Store(tmp_path / "runs")
    for n in range(4):
        made = fake_results.result("padim", f"c{n}", date=f"2026-11-2{n}T00:00:00+00:00")
        store.save(made)
        if n != 2:
            (store.path(made.spec) / "model").mkdir()
            (store.path(made.spec) / "model/detector.json").write_text('{"detector": "padim"}')
    server = serve(store).server
    assert [m["task"] for m in newest(server, 2)] == ["c3", "c1"]
    oldest = newest(server, 9)[-1]["id"]
    assert [m["task"] for m in newest(server, 1, oldest)] == ["c3", "c0"]
    assert [m["task"] for m in newest(server, 1, "none")] == ["c3"]


def test_a_run_without_a_model(client, ids):
    assert client.get("/api/v1/models").json() == []
    response = client.get(f"/api/v1/models/{ids.of('padim', 'cable')}")
    assert response.status_code == 404
    assert "no stored model" in response.json()["detail"]


@pytest.fixture
def tampered(fitted, tmp_path):
    """Return a function that copies the store with another card."""

    def change(**card):
        root = tmp_path / "runs"
        shutil.copytree(fitted.store.root, root, ignore=shutil.ignore_patterns("*.sqlite*"))
        (file,) = root.glob("*/model/detector.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **card}))
        return Store(root), file.parent

    return change


def test_a_card_cannot_name_an_arbitrary_class(tampered, monkeypatch):
    _, folder = tampered(detector="os:system")
    monkeypatch.setattr("iadbe.api.load", lambda *a: pytest.fail("loaded"))
    with pytest.raises(BadConfig, match="not registered"):
        ModelCache().get(folder, "cpu")


def test_pickles_are_not_models(tampered, serve):
    store, folder = tampered()
    (folder / "weights.safetensors").rename(folder / "weights.pt")
    client = serve(store)
    response = client.post("/api/v1/predict", data={"model": folder.parent.name}, files={"files": ("a.png", b"x")})
    assert response.status_code == 404
    (folder / "weights.safetensors").write_bytes(b"\x80\x04\x95 a pickle")
    good = (folder.parent / "images").glob("*_input.jpg")
    files = {"files": ("a.jpg", next(good).read_bytes())}
    response = client.post("/api/v1/predict", data={"model": folder.parent.name}, files=files)
    assert response.status_code == 422
    assert "cannot be read as a model" in response.json()["detail"]


def test_a_damaged_card_hides_only_its_model(tampered, serve):
    store, folder = tampered()
    (folder / "detector.json").write_text("{")
    client = serve(store)
    assert client.get("/api/v1/models").json() == []
    assert client.get("/api/v1/runs").json()["total"] == 1


def test_models_are_cached_until_their_files_change(fitted, monkeypatch):
    (folder,) = fitted.store.root.glob("*/model")
    kept = ModelCache()
    first = kept.get(folder, "cpu")
    assert kept.get(folder, "cpu") is first
    (folder / "detector.json").write_text((folder / "detector.json").read_text() + "\n")
    second = kept.get(folder, "cpu")
    assert second is not first
    monkeypatch.setattr(models, "MAX_LOADED", 1)
    (folder / "detector.json").write_text((folder / "detector.json").read_text().rstrip() + " \n")
    kept.get(folder, "cpu")
    assert len(kept._loaded) == 1
