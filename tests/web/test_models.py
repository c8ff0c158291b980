import json
import shutil

import pytest

import fake_results
from iadbe.errors import BadConfig
from iadbe.running.store import Store
from iadbe.web import models
from iadbe.web.models import Fitted


def test_what_runs_have_kept(serve, fitted):
    client = serve(fitted.store)
    (told,) = client.get("/api/v1/models").json()
    assert (told["id"], told["detector"], told["dataset"], told["task"]) == (fitted.run, "padim", "mvtec_ad", "nut")
    assert told["threshold"] > 0
    assert told["bytes"] > 1000
    assert not told["calibrated"]
    assert told["values"]["image_auroc"] == 1.0
    assert client.get(f"/api/v1/models/{fitted.run}").json() == told


def test_a_page_gets_the_newest_and_the_one_it_asks_for(serve, tmp_path):
    from iadbe.web.models import newest

    store = Store(tmp_path / "runs")
    for n in range(4):
        made = fake_results.result("padim", f"c{n}", date=f"2026-11-2{n}T00:00:00+00:00")
        store.save(made)
        if n != 2:
            (store.path(made.spec) / "model").mkdir()
            (store.path(made.spec) / "model/detector.json").write_text('{"detector": "padim"}')
    house = serve(store).house
    assert [m["task"] for m in newest(house, 2)] == ["c3", "c1"]
    oldest = newest(house, 9)[-1]["id"]
    assert [m["task"] for m in newest(house, 1, oldest)] == ["c3", "c0"]
    assert [m["task"] for m in newest(house, 1, "none")] == ["c3"]


def test_a_run_without_a_model(client, ids):
    assert client.get("/api/v1/models").json() == []
    told = client.get(f"/api/v1/models/{ids.of('padim', 'cable')}")
    assert told.status_code == 404
    assert "no model" in told.json()["detail"]


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


def test_a_card_that_names_a_class_anywhere_is_not_loaded(tampered, monkeypatch):
    _, folder = tampered(detector="os:system")
    monkeypatch.setattr("iadbe.api.load", lambda *a: pytest.fail("loaded"))
    with pytest.raises(BadConfig, match="not on the shelf"):
        Fitted().get(folder, "cpu")


def test_pickles_are_no_models(tampered, serve):
    store, folder = tampered()
    (folder / "weights.safetensors").rename(folder / "weights.pt")
    client = serve(store)
    told = client.post("/api/v1/predict", data={"model": folder.parent.name}, files={"files": ("a.png", b"x")})
    assert told.status_code == 404
    (folder / "weights.safetensors").write_bytes(b"\x80\x04\x95 a pickle")
    good = (folder.parent / "images").glob("*_input.jpg")
    files = {"files": ("a.jpg", next(good).read_bytes())}
    told = client.post("/api/v1/predict", data={"model": folder.parent.name}, files=files)
    assert told.status_code == 422
    assert "cannot be read as a model" in told.json()["detail"]


def test_a_garbled_card_hides_only_itself(tampered, serve):
    store, folder = tampered()
    (folder / "detector.json").write_text("{")
    client = serve(store)
    assert client.get("/api/v1/models").json() == []
    assert client.get("/api/v1/runs").json()["total"] == 1


def test_a_few_stay_in_memory_until_their_files_change(fitted, monkeypatch):
    (folder,) = fitted.store.root.glob("*/model")
    kept = Fitted()
    first = kept.get(folder, "cpu")
    assert kept.get(folder, "cpu") is first
    (folder / "detector.json").write_text((folder / "detector.json").read_text() + "\n")
    second = kept.get(folder, "cpu")
    assert second is not first
    monkeypatch.setattr(models, "LOADED", 1)
    (folder / "detector.json").write_text((folder / "detector.json").read_text().rstrip() + " \n")
    kept.get(folder, "cpu")
    assert len(kept._loaded) == 1
