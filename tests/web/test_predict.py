import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from http_client import opened
from iadbe import api
from iadbe.web.rules import Rules
from uploads import bomb


@pytest.fixture(scope="module")
def client(fitted):
    with opened(fitted.store, Rules(predict_rate=1000), device="cpu") as client:
        yield client


def send(client, run, files, **data):
    return client.post("/api/v1/predict", data={"model": run, **data}, files=[("files", f) for f in files])


def images(fitted):
    return sorted(fitted.parts.rglob("*.png"))


def decoded(uri):
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_it_says_what_the_command_line_says(client, fitted):
    paths = images(fitted)
    told = send(client, fitted.run, [(p.name, p.read_bytes()) for p in paths])
    assert told.status_code == 200
    body = told.json()
    wanted = list(api.predict(next(fitted.store.root.glob("*/model")), paths, device="cpu"))
    for said, own, path in zip(body["findings"], wanted, paths, strict=True):
        assert said["name"] == path.name
        assert math.isclose(said["score"], own.score, rel_tol=1e-5)
        assert said["defective"] == own.defective
        assert decoded(said["heat"]).shape == (64, 64, 3)
        assert decoded(said["map"]).shape == (64, 64, 4)
    assert body["detector"] == "padim"
    assert body["threshold"] == wanted[0].threshold
    assert body["milliseconds"] > 0


def test_a_threshold_and_no_images(client, fitted):
    paths = images(fitted)[:1]
    told = send(client, fitted.run, [("a.png", paths[0].read_bytes())], threshold="1e9", images="false").json()
    assert told["findings"][0]["defective"] is False
    assert told["findings"][0]["heat"] is None
    assert told["threshold"] == 1e9
    assert send(client, fitted.run, [("a.png", b"x")], threshold="nan").status_code == 422


def test_what_is_no_image_is_a_finding_with_an_error(client, fitted):
    good = images(fitted)[0].read_bytes()
    files = [
        ("evil.png", b"#!/bin/sh"),
        ("../../x.png", good),
        ("bomb.png", bomb(20_000, 20_000)),
        ("cut.png", good[:200]),
    ]
    told = send(client, fitted.run, files)
    first, second, third, fourth = told.json()["findings"]
    assert "is no image" in first["error"]
    assert (second["error"], second["name"]) == ("", "../../x.png")
    assert second["score"] is not None
    assert "20000x20000 pixels" in third["error"]
    assert fourth["score"] is None
    assert "cannot be read" in fourth["error"]
    assert "/tmp" not in told.text


def test_only_bad_images_need_no_model(client, fitted):
    told = send(client, fitted.run, [("a.png", b"x")]).json()
    assert [f["score"] for f in told["findings"]] == [None]


@pytest.mark.parametrize("model", ["", "..", "../..", "/etc", "0" * 12])
def test_no_other_folder_is_a_model(client, model):
    told = send(client, model, [("a.png", b"x")])
    assert told.status_code in (404, 422)


def test_limits(serve, fitted):
    client = serve(fitted.store, Rules(images=2, predict_rate=3, image=100), device="cpu")
    data = images(fitted)[0].read_bytes()
    assert send(client, fitted.run, [("a.png", b"x")] * 3).status_code == 413
    told = send(client, fitted.run, [("a.png", data)])
    assert "MB are allowed" in told.json()["findings"][0]["error"]
    assert send(client, fitted.run, [("a.png", b"x")] * 2).status_code == 200
    told = send(client, fitted.run, [("a.png", b"x")])
    assert told.status_code == 429
    assert int(told.headers["retry-after"]) > 0


def test_only_some_wait_for_their_turn(client, fitted):
    turns = client.house.turns
    taken = 0
    while turns.acquire(blocking=False):
        taken += 1
    told = send(client, fitted.run, [("a.png", b"x")])
    turns.release(taken)
    assert (told.status_code, told.headers["retry-after"]) == (503, "10")
    for _ in range(taken + 3):  # each is given back, whatever happens
        assert send(client, fitted.run, [("a.png", b"x")]).status_code == 200


def test_a_large_image_comes_back_no_larger_than_a_screen(client, fitted):
    data = io.BytesIO()
    Image.fromarray(np.full((1500, 900, 3), 90, np.uint8)).save(data, "JPEG")
    (said,) = send(client, fitted.run, [("a.jpg", data.getvalue())]).json()["findings"]
    assert decoded(said["heat"]).shape == (1024, 614, 3)
    assert decoded(said["map"]).shape == (1024, 614, 4)
