import base64
import dataclasses
import io
import math
import shutil
import threading
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from http_client import opened
from iadbe import api
from iadbe.running import model_folder
from iadbe.running.store import Store
from iadbe.runtime.regions import RegionRule
from iadbe.web.policy import Policy
from uploads import bomb, tiff_of


@pytest.fixture(scope="module")
def client(fitted):
    with opened(fitted.store, Policy(predict_rate=1000), device="cpu") as client:
        yield client


def send(client, run, files, **data):
    return client.post("/api/v1/predict", data={"model": run, **data}, files=[("files", f) for f in files])


def images(fitted):
    return sorted(fitted.parts.rglob("*.png"))


def decoded(uri):
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_it_returns_the_same_as_the_command_line(client, fitted):
    paths = images(fitted)
    response = send(client, fitted.run, [(p.name, p.read_bytes()) for p in paths])
    assert response.status_code == 200
    body = response.json()
    wanted = list(api.predict(next(fitted.store.root.glob("*/model")), paths, device="cpu"))
    for said, own, path in zip(body["findings"], wanted, paths, strict=True):
        assert said["name"] == path.name
        assert math.isclose(said["score"], own.score, rel_tol=1e-5)
        assert (said["defective"], said["verdict"]) == (own.defective, own.verdict)
        assert decoded(said["heat"]).shape == (64, 64, 3)
        assert decoded(said["map"]).shape == (64, 64, 4)
    assert body["detector"] == "padim"
    assert body["threshold"] == wanted[0].threshold
    assert body["milliseconds"] > 0


def test_a_threshold_and_no_images(client, fitted):
    paths = images(fitted)[:1]
    response = send(client, fitted.run, [("a.png", paths[0].read_bytes())], threshold="1e9", images="false").json()
    assert response["findings"][0]["defective"] is False
    assert response["findings"][0]["heat"] is None
    assert response["threshold"] == 1e9
    assert send(client, fitted.run, [("a.png", b"x")], threshold="nan").status_code == 422


def test_an_invalid_image_gets_an_error(client, fitted):
    good = images(fitted)[0].read_bytes()
    files = [
        ("evil.png", b"#!/bin/sh"),
        ("../../x.png", good),
        ("bomb.png", bomb(20_000, 20_000)),
        ("cut.png", good[:200]),
    ]
    response = send(client, fitted.run, files)
    first, second, third, fourth = response.json()["findings"]
    assert "is not an image" in first["error"]
    assert (second["error"], second["name"]) == ("", "../../x.png")
    assert second["score"] is not None
    assert "20000x20000 pixels" in third["error"]
    assert fourth["score"] is None
    assert "cannot be read" in fourth["error"]
    assert "/tmp" not in response.text


def test_invalid_images_do_not_load_the_model(client, fitted):
    response = send(client, fitted.run, [("a.png", b"x")]).json()
    assert [f["score"] for f in response["findings"]] == [None]


@pytest.mark.parametrize("model", ["", "..", "../..", "/etc", "0" * 12])
def test_no_other_folder_is_used_as_a_model(client, model):
    response = send(client, model, [("a.png", b"x")])
    assert response.status_code in (404, 422)


def test_limits(serve, fitted):
    client = serve(fitted.store, Policy(images=2, predict_rate=3, image=100), device="cpu")
    data = images(fitted)[0].read_bytes()
    assert send(client, fitted.run, [("a.png", b"x")] * 3).status_code == 413
    response = send(client, fitted.run, [("a.png", data)])
    assert "100 bytes are allowed" in response.json()["findings"][0]["error"]
    assert send(client, fitted.run, [("a.png", b"x")] * 2).status_code == 200
    response = send(client, fitted.run, [("a.png", b"x")])
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0


def test_all_pixels_of_a_request_are_limited(serve, fitted):
    client = serve(fitted.store, Policy(request_pixels=64 * 64 * 2), device="cpu")
    data = images(fitted)[0].read_bytes()
    assert send(client, fitted.run, [("a.png", data)] * 2).status_code == 200
    response = send(client, fitted.run, [("a.png", data)] * 3)
    assert response.status_code == 413
    assert "pixels" in response.json()["detail"]
    assert send(client, fitted.run, [("a.png", data)]).status_code == 200


def test_memory_is_bounded_by_one_image(client, fitted):
    """Six images of 12 million pixels: a few times one image, not the sum of their maps."""
    image = io.BytesIO()
    Image.fromarray(np.full((3000, 4000, 3), 90, np.uint8)).save(image, "PNG")
    one = 3000 * 4000 * 3

    def peak(count):
        tracemalloc.start()
        response = send(client, fitted.run, [("a.png", image.getvalue())] * count)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [f["error"] for f in response.json()["findings"]] == [""] * count
        return found

    peak(1)  # loads the model
    first = peak(1)
    assert first < 8 * one
    assert peak(6) < first + one


def test_requests_take_turns(fitted):
    """A request of one image is not kept waiting by a request of many."""
    data = images(fitted)[0].read_bytes()
    with opened(fitted.store, Policy(predict_rate=10_000), device="cpu") as client:
        send(client, fitted.run, [("a.png", data)])
        ends = {}

        def timed(name, count):
            send(client, fitted.run, [("a.png", data)] * count)
            ends[name] = time.monotonic()

        long = threading.Thread(target=timed, args=("long", 64))
        long.start()
        time.sleep(0.1)
        timed("short", 1)
        long.join()
    assert ends["short"] < ends["long"]


def test_a_bug_while_an_image_is_scored_is_reported_with_it(client, fitted, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(api, "predict", broken)
    (found,) = send(client, fitted.run, [("a.png", images(fitted)[0].read_bytes())]).json()["findings"]
    assert "this is a bug" in found["error"]
    assert "secret" not in found["error"]


def test_the_number_of_waiting_requests_is_limited(client, fitted):
    turns = client.server.predict_slots
    taken = 0
    while turns.acquire(blocking=False):
        taken += 1
    response = send(client, fitted.run, [("a.png", b"x")])
    turns.release(taken)
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")
    for _ in range(taken + 3):  # each is given back, whatever happens
        assert send(client, fitted.run, [("a.png", b"x")]).status_code == 200


def test_returned_images_are_downscaled(client, fitted):
    data = io.BytesIO()
    Image.fromarray(np.full((1500, 900, 3), 90, np.uint8)).save(data, "JPEG")
    (said,) = send(client, fitted.run, [("a.jpg", data.getvalue())]).json()["findings"]
    assert decoded(said["heat"]).shape == (1024, 614, 3)
    assert decoded(said["map"]).shape == (1024, 614, 4)


def test_pages_of_a_tiff_are_images_of_their_own(client, fitted):
    first, second = (np.asarray(Image.open(path).convert("RGB")) for path in images(fitted)[:2])
    file = io.BytesIO()
    Image.fromarray(first).save(file, "TIFF", save_all=True, append_images=[Image.fromarray(second)])
    found = send(client, fitted.run, [("stack.tif", file.getvalue()), ("x.png", b"no")]).json()["findings"]
    assert [f["name"] for f in found] == ["stack.tif#0000", "stack.tif#0001", "x.png"]
    wanted = list(api.predict(next(fitted.store.root.glob("*/model")), [first, second], device="cpu"))
    for said, own in zip(found, wanted, strict=False):
        assert math.isclose(said["score"], own.score, rel_tol=1e-5)
        assert said["heat"]
    many = io.BytesIO()
    pages = [Image.new("L", (8, 8)) for _ in range(200)]
    pages[0].save(many, "TIFF", save_all=True, append_images=pages[1:])
    assert send(client, fitted.run, [("many.tif", many.getvalue())]).status_code == 413


def test_every_page_of_a_tiff_is_limited(serve, fitted):
    """The first page says nothing on the others: one of 3 x 2 pixels may come before those of 48 million."""
    client = serve(fitted.store, Policy(pixels=50_000_000, request_pixels=100_000_000), device="cpu")
    found = send(client, fitted.run, [("a.tif", tiff_of([(3, 2), (30_000, 2_000)]))]).json()["findings"]
    assert found[1]["error"] == "a.tif#0001 has 60 million pixels; 50 million are allowed."
    response = send(client, fitted.run, [("a.tif", tiff_of([(3, 2)] + [(8_000, 6_000)] * 3))])
    assert (response.status_code, "100 million pixels" in response.json()["detail"]) == (413, True)
    (found,) = send(client, fitted.run, [("a.tif", tiff_of([(3, 2), (30_000, 2_000)], {0}))]).json()["findings"]
    assert found["error"] == "a.tif has 60 million pixels; 50 million are allowed."
    began = time.monotonic()
    response = send(client, fitted.run, [("a.tif", tiff_of([(3, 2)] * 50_000))])
    assert (response.status_code, "more than 64 pages" in response.json()["detail"]) == (413, True)
    assert time.monotonic() - began < 5


def test_channels_count_as_pixels(serve, fitted):
    client = serve(fitted.store, Policy(pixels=1000), device="cpu")
    data = io.BytesIO()
    tifffile.imwrite(data, np.zeros((10, 10, 200), np.float32), photometric="minisblack", planarconfig="contig")
    (found,) = send(client, fitted.run, [("a.tif", data.getvalue())]).json()["findings"]
    assert "0.001 million are allowed" in found["error"]


def test_the_verdict_and_the_regions_are_those_of_the_models_rule(serve, fitted, tmp_path):
    shutil.copytree(fitted.store.root, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").glob("*/model")
    own, paths = model_folder.load(folder).calibration, images(fitted)
    highest = max(found.map.max() for found in api.predict(folder, paths, device="cpu"))
    rule = {"pixel_threshold": float(highest) / 2, "rule": RegionRule(min_area=5), "look_pixel_threshold": None}
    model_folder.save_calibration(folder, dataclasses.replace(own, **rule))
    client = serve(Store(tmp_path / "runs"), Policy(predict_rate=1000), device="cpu")
    body = send(client, fitted.run, [(p.name, p.read_bytes()) for p in paths]).json()
    wanted = list(api.predict(folder, paths, device="cpu"))
    for said, found in zip(body["findings"], wanted, strict=True):
        assert said["verdict"] == found.verdict == ("reject" if found.regions else "good")
        assert said["regions"] == [one.card() for one in found.regions]
    assert {said["verdict"] for said in body["findings"]} == {"good", "reject"}
    given = send(client, fitted.run, [("a.png", paths[0].read_bytes())], threshold="-1000000").json()["findings"][0]
    assert (given["verdict"], given["regions"]) == ("reject", None)
