import base64
import io
import json
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from iadbe import api
from iadbe.report import colormap
from iadbe.running.store import Store
from iadbe.seeds import run_id
from iadbe.types import Options
from iadbe.web.run_cache import MAX_AGE
from part_images import draw_mvtec

HALF = {"kind": "ignore", "form": "rectangle", "points": [[32, 0], [64, 64]]}
ADDRESS = "/api/v1/datasets/nuts/regions?category=nut"


@pytest.fixture
def nuts(serve, tmp_path):
    draw_mvtec(tmp_path / "secret-place")
    draw_mvtec(tmp_path / "secret-place", "bolt")
    return serve(Store(tmp_path / "runs"), data_roots={"nuts": tmp_path / "secret-place"})


def put(client, *shapes, revision="", size=(64, 64), address=ADDRESS):
    return client.put(address, json={"size": size, "shapes": shapes, "revision": revision})


def planned(client, **entry):
    grid = {"detectors": ["padim"], "data": [{"name": "nuts", "categories": ["nut"], **entry}]}
    return client.post("/api/v1/plan", json={"grid": grid})


def test_what_is_drawn_is_stored_and_used_by_new_runs(nuts, tmp_path):
    whole = planned(nuts).json()
    response = put(nuts, HALF)
    assert response.status_code == 200
    assert response.json()["regions"]["nut"]["counted"] == 0.5
    assert nuts.get("/api/v1/datasets/nuts/regions").json() == response.json()
    assert nuts.get("/api/v1/datasets/nuts").json()["regions"] == {"nut": 0.5}
    half, without = planned(nuts).json(), planned(nuts, region="none").json()
    assert "nut: 50 % of an image's pixels count; the rest is ignored." in half["notes"]
    assert half["some"][0]["id"] != whole["some"][0]["id"] == without["some"][0]["id"]
    other = planned(nuts, categories=["bolt"]).json()
    assert not any("count;" in note for note in other["notes"])
    check = nuts.get("/api/v1/datasets/nuts/check").json()
    assert check["counted"] == {"nut": 0.5}
    assert "secret-place" not in response.text
    assert str(tmp_path) not in str(half)


def test_images_show_it_greyed(nuts):
    put(nuts, HALF)
    first = nuts.get("/api/v1/datasets/nuts/samples", params={"category": "nut", "limit": 1}).json()["samples"][0]
    answer = nuts.get(first["links"]["truth"])
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    grey = colormap.greyed(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), bool)).max()
    assert np.ptp(pixels[:, 40:], axis=2).max() < 20 < np.ptp(pixels[:, :24], axis=2).max()
    assert pixels[:, 40:].min() > grey - 20
    again = nuts.get(first["links"]["truth"], headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    put(nuts, revision=nuts.get(ADDRESS).json()["revision"])
    assert nuts.get(first["links"]["truth"]).status_code == 404  # nothing to show in a good image


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"size": (64, 128)}, 400, "the drawing is 64x128 pixels large, but an image of nut is 64x64"),
        ({"size": (128, 128)}, 400, "Load the page again"),
        ({"revision": "0" * 16}, 409, "changed in the meantime"),
        ({"revision": "0" * 17}, 422, "revision"),
        ({"address": ADDRESS.replace("=nut", "=cog")}, 404, "no images of a category 'cog'"),
        ({"address": ADDRESS.replace("/nuts/", "/none/")}, 404, "there is no data 'none'"),
        ({"address": "/api/v1/datasets/..%2Fnuts/regions?category=nut"}, 404, ""),
    ],
)
def test_what_does_not_fit_is_refused(nuts, tmp_path, change, status, said):
    response = put(nuts, HALF, **change)
    assert response.status_code == status
    assert said in response.json()["detail"]
    assert not (tmp_path / "runs/.regions").exists()


def test_numbers_are_checked(nuts):
    for points in ([[32, 0], [65, 64]], [[32, 0], [1e99, 64]], [[32, 0], ["9", 64]]):
        assert put(nuts, {**HALF, "points": points}).status_code == 422
    text = json.dumps({"size": [64, 64], "revision": "", "shapes": [{**HALF, "points": [[float("nan"), 0], [9, 9]]}]})
    assert nuts.put(ADDRESS, content=text, headers={"content-type": "application/json"}).status_code == 422
    whole = {**HALF, "points": [[0, 0], [64, 64]]}
    assert "no pixel would count" in put(nuts, whole).json()["detail"]


def test_a_model_keeps_the_region_that_it_was_trained_with(nuts, tmp_path):
    put(nuts, HALF)
    files = nuts.server.data_roots.region_files("nuts", "drawn")
    options = Options(features="off", device="cpu")
    how = {"categories": ["nut"], "data_params": files, "protocol": "uniform@64", "options": options, "dims": 16}
    (trained,) = api.train("padim", str(tmp_path / "secret-place"), store=tmp_path / "runs", **how)
    time.sleep(MAX_AGE)  # a quick training ends before the server looks again
    image = (tmp_path / "secret-place/nut/test/spot/0.png").read_bytes()
    sent = {"data": {"model": run_id(trained.result.spec)}, "files": {"files": ("x.png", image)}}
    (found,) = nuts.post("/api/v1/predict", **sent).json()["findings"]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["map"].partition(",")[2]))))
    assert (drawn[:, 33:] == colormap.IGNORED).all()
    assert not (drawn[:, :31] == colormap.IGNORED).all(axis=2).any()


def test_images_of_different_proportions_have_no_common_region(serve, tmp_path):
    draw_mvtec(tmp_path / "nuts")
    Image.new("RGB", (64, 40)).save(tmp_path / "nuts/nut/train/good/5.png")
    client = serve(Store(tmp_path / "runs"), data_roots={"nuts": tmp_path / "nuts"})
    assert "different proportions (64x64 and 64x40 pixels)" in put(client, HALF).json()["detail"]


def test_a_read_only_server_shows_and_refuses(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "is_read_only", property(lambda self: True))
    client = serve(Store(tmp_path / "runs"))
    address = "/api/v1/datasets/toy/regions?category=fabric"
    assert put(client, HALF, address=address).status_code == 403
    assert client.get(address).json() == {"revision": "", "regions": {}}


def test_generated_data_can_have_one_too(serve, tmp_path):
    client = serve(Store(tmp_path / "runs"))
    address = "/api/v1/datasets/toy/regions?category=fabric"
    assert put(client, HALF, address=address, size=(256, 256)).status_code == 200
    grid = {"detectors": ["padim"], "data": [{"name": "toy", "categories": ["fabric"]}]}
    notes = client.post("/api/v1/plan", json={"grid": grid}).json()["notes"]
    assert any("of an image's pixels count" in note for note in notes)


def test_a_request_names_no_file_of_a_region(nuts):
    for entry in ({"roi": "roi.png"}, {"params": {"ignore": "roi.png"}}, {"region": "roi.png"}, {"region": ["drawn"]}):
        assert planned(nuts, **entry).status_code == 400


def test_the_grid_for_the_command_line_names_the_files(nuts, tmp_path):
    put(nuts, HALF)
    for entry, expected in (({}, True), ({"region": "none"}, False)):
        grid = {"detectors": ["padim"], "data": [{"name": "nuts", **entry}]}
        job = nuts.post("/api/v1/jobs", json={"grid": grid}).json()
        (data,) = yaml.safe_load(nuts.get(f"/api/v1/jobs/{job['id']}/grid").text)["data"]
        assert "region" not in data
        assert ("ignore" in data) == expected
        if expected:
            assert (tmp_path / "runs" / data["ignore"]).is_file()


def test_removed_data_leaves_no_region(serve, tmp_path):
    from part_images import draw_parts
    from uploads import zip_folder

    client = serve(Store(tmp_path / "runs"))
    archive = zip_folder(draw_parts(tmp_path / "parts", 4, 2), tmp_path / "x.zip")
    with archive.open("rb") as file:
        made = client.post("/api/v1/datasets", data={"name": "mine"}, files={"file": file}).json()
    address = f"/api/v1/datasets/mine/regions?category={made['categories'][0]}"
    assert put(client, HALF, address=address).status_code == 200
    assert (tmp_path / "runs/.regions/mine").is_dir()
    assert client.delete("/api/v1/datasets/mine").status_code == 204
    assert not (tmp_path / "runs/.regions/mine").exists()
