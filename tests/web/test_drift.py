"""Routes on drift."""

import pytest

from http_client import opened
from iadbe.monitoring import reference
from iadbe.web.drift import watched
from watched_models import copied, use


@pytest.fixture
def line(fitted, tmp_path):
    return copied(fitted, tmp_path)


def test_the_hours_of_a_model(line, serve):
    use(line.model)
    client = serve(line.store, device="cpu")
    found = client.get(f"/api/v1/models/{line.run}/drift").json()
    assert found["images"] == 240
    assert len(found["hours"]) == 6
    assert found["hours"][0]["rejected"] == pytest.approx(1 / 40)
    assert found["alarm"] is not None
    assert found["channels"][0]["channel"] == "brightness"
    assert "the light" in found["sentence"]


def test_models_without_a_calibration_are_not_watched(line, serve):
    client = serve(line.store, device="cpu")
    answer = client.get(f"/api/v1/models/{line.run}/drift")
    assert answer.status_code == 404
    assert "at least 20 good images" in answer.json()["detail"]
    assert client.get("/api/v1/models/none/drift").status_code == 404


def test_what_the_server_scores_counts(line, serve):
    use(line.model, hours=1)
    known = reference.read(line.model)
    client = serve(line.store, device="cpu")
    images = [("files", (p.name, p.read_bytes())) for p in sorted(line.parts.rglob("*.png"))]
    for history in ("true", "false"):
        answer = client.post(
            "/api/v1/predict", data={"model": line.run, "images": "false", "history": history}, files=images
        )
        assert answer.status_code == 200
        assert answer.json()["findings"]
    (hour,) = history_of(line.model).hours(known.key, "server")
    assert hour.images == len(images)


def history_of(model):
    from iadbe.monitoring.history import FILE, History

    return History(model / FILE)


def test_a_damaged_reference_does_not_end_predictions(line, serve):
    (line.model / reference.FILE).write_text("{")
    client = serve(line.store, device="cpu")
    image = next(line.parts.rglob("*.png"))
    answer = client.post(
        "/api/v1/predict", data={"model": line.run}, files=[("files", (image.name, image.read_bytes()))]
    )
    assert answer.status_code == 200
    assert client.get(f"/api/v1/models/{line.run}/drift").status_code in (400, 409, 422)


def test_all_watched_models_are_listed(line):
    with opened(line.store) as client:
        server = client.app.app.state.server if hasattr(client.app, "app") else client.app.state.server
        assert watched(server) == []
        use(line.model)
        (found,) = watched(server)
        assert found["error"] == ""
        (line.model / reference.FILE).write_text("{")
        (found,) = watched(server)
        assert "is damaged" in found["error"]
