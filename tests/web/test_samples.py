import io

import numpy as np
import pytest
from PIL import Image

from iadbe.running.store import Store
from part_images import draw_mvtec


@pytest.fixture
def nuts(serve, tmp_path):
    draw_mvtec(tmp_path / "secret-place")
    return serve(Store(tmp_path / "runs"), data_roots={"nuts": tmp_path / "secret-place"})


def pixels(answer):
    assert answer.status_code == 200
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


def test_the_list_is_filtered_and_paged(nuts):
    response = nuts.get("/api/v1/datasets/nuts/samples").json()
    assert response["total"] == 14
    assert {(k["split"], k["defect"], k["count"]) for k in response["kinds"]} == {
        ("train", "good", 8),
        ("test", "good", 3),
        ("test", "spot", 3),
    }
    assert "secret-place" not in str(response)
    bad = nuts.get("/api/v1/datasets/nuts/samples", params={"defect": "any"}).json()
    assert [s["defect"] for s in bad["samples"]] == ["spot"] * 3
    assert set(bad["samples"][0]["links"]) == {"image", "mask", "truth"}
    query = {"split": "train", "limit": 2, "offset": 7}
    last = nuts.get("/api/v1/datasets/nuts/samples", params=query).json()
    assert (last["total"], len(last["samples"])) == (8, 1)


def test_images_are_small_and_outlined(nuts):
    bad = nuts.get("/api/v1/datasets/nuts/samples", params={"defect": "spot"}).json()["samples"][0]
    image = pixels(nuts.get(bad["links"]["image"], params={"size": 32}))
    truth = pixels(nuts.get(bad["links"]["truth"], params={"size": 32}))
    mask = pixels(nuts.get(bad["links"]["mask"]))[:, :, 0] > 128
    assert image.shape == (32, 32, 3)
    changed = np.abs(image - truth).max(2) > 60
    small = np.asarray(Image.fromarray(mask).resize((32, 32)))
    assert 0 < changed.sum() < 120
    assert changed[small].mean() > 3 * changed[~small].mean()
    good = nuts.get("/api/v1/datasets/nuts/samples", params={"defect": "good"}).json()["samples"][0]
    assert set(good["links"]) == {"image"}
    assert nuts.get(good["links"]["image"].replace("image", "mask")).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("nuts/samples/99/image", 404), ("nuts/samples/-1/image", 422), ("none/samples", 404), ("mvtec_ad/samples", 404)],
)
def test_unknown_resources_are_not_found(nuts, path, status):
    assert nuts.get(f"/api/v1/datasets/{path}").status_code == status


def test_generated_data(nuts):
    response = nuts.get("/api/v1/datasets/toy/samples", params={"defect": "any", "limit": 1}).json()
    assert pixels(nuts.get(response["samples"][0]["links"]["truth"])).shape == (256, 256, 3)


def test_12_bit_images_are_displayed_in_their_own_range(serve, tmp_path):
    (tmp_path / "deep/good").mkdir(parents=True)
    for number in range(6):
        deep = np.random.default_rng(number).integers(1000, 4000, (40, 40)).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / f"deep/good/{number}.png")
    client = serve(Store(tmp_path / "runs"), data_roots={"deep": tmp_path / "deep"})
    good = client.get("/api/v1/datasets/deep/samples", params={"defect": "good"}).json()["samples"][0]
    assert pixels(client.get(good["links"]["image"])).mean() > 100
    found = client.get("/api/v1/datasets/deep/check").json()
    assert found["intensity"].startswith("0 is black and 4095 is white")
    assert found["near_copies"] == []
