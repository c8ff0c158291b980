import math

import pytest

from iadbe import registry
from iadbe.parameters import complete
from iadbe.web.catalogue import form


def test_every_detector_is_listed_without_importing_it(client):
    response = client.get("/api/v1/detectors").json()
    assert [d["name"] for d in response] == list(registry.names("detectors"))
    padim = next(d for d in response if d["name"] == "padim")
    assert padim["runs"] == 4
    assert padim["about"]["year"] == 2021 or padim["about"]["year"] == 2020
    assert padim["about"]["needs"] == ["image"]


def test_one_detector_with_its_results(client):
    response = client.get("/api/v1/detectors/padim").json()
    by_data = {r["dataset"]: r for r in response["results"]}
    assert set(by_data) == {"mvtec_ad", "visa"}
    assert by_data["mvtec_ad"]["values"]["image_auroc"] == pytest.approx(0.89)
    assert by_data["mvtec_ad"]["runs"] == 3
    assert "Paper:" in response["doc"]
    assert client.get("/api/v1/detectors/cfa").json()["results"] == []


@pytest.mark.parametrize("registry_name", ["detectors", "settings", "datasets"])
def test_the_schema_of_every_card_accepts_its_defaults(registry_name):
    for name in registry.names(registry_name):
        card = registry.card(registry_name, name)
        made = form(card)
        assert list(made["properties"]) == [p.name for p in card.parameters]
        for parameter in card.parameters:
            field = made["properties"][parameter.name]
            assert field["x-takes"]
            if not parameter.required:
                complete(card, {parameter.name: field["default"], **{p: "x" for p in made["required"]}})


def test_annotations_become_json_types():
    fields = form(registry.card("detectors", "padim"))["properties"]
    kinds = {
        f.get("type")
        for n in registry.names("detectors")
        for f in form(registry.card("detectors", n))["properties"].values()
    }
    assert {"integer", "number", "string", "array", "boolean"} <= kinds
    assert fields["backbone"]["type"] == "string"
    assert fields["backbone"]["description"]


def test_settings_and_metrics(client):
    assert "few_shot" in [s["name"] for s in client.get("/api/v1/settings").json()]
    assert client.get("/api/v1/settings/few_shot").json()["form"]["properties"]["k"]["type"] == "integer"
    metrics = {m["name"]: m for m in client.get("/api/v1/metrics").json()}
    assert metrics["image_auroc"]["default"]
    assert not metrics["image_auroc"]["lower_is_better"]


@pytest.mark.parametrize("name", ["os:system", "conftest:opened", "..", "%2e%2e%2fstore", "padin", "__init__"])
def test_a_name_never_imports_a_module(client, name, monkeypatch):
    monkeypatch.setattr(registry, "_user_class", lambda name: math.nan)
    for registry_name in ("detectors", "settings", "datasets"):
        assert client.get(f"/api/v1/{registry_name}/{name}").status_code == 404


def test_parameters_for_the_operator_are_read_only(client):
    form = client.get("/api/v1/detectors/patchcore", params={"results": False}).json()
    assert form["results"] == []
    assert form["form"]["properties"]["weights"]["enum"] == ["auto", "none"]
    assert "readOnly" not in form["form"]["properties"]["backbone"]
    root = client.get("/api/v1/datasets/folder").json()["form"]["properties"]
    assert root["root"]["readOnly"]
    assert "readOnly" not in root["normal_split_ratio"]
