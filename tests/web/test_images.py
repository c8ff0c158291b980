import io

import numpy as np
import pytest
from PIL import Image

import fake_results
from iadbe.report import colormap
from iadbe.running.store import Store
from iadbe.seeds import run_id


@pytest.fixture
def run(ids):
    return ids.of("patchcore", "bottle")


def opened(answer):
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_stored_images_are_listed(client, run, ids):
    response = client.get("/api/v1/images", params={"run": run}).json()
    assert len(response) == 12
    assert set(response[0]["links"]) == {"input", "map", "heat", "overlay"}
    bad = next(e for e in response if e["defect"] != "good")
    assert {"mask", "truth"} <= set(bad["links"])
    assert client.get("/api/v1/images", params={"run": ids.of("padim", "cable")}).json() == []
    one = client.get("/api/v1/images", params={"run": [run, run], "sample": bad["sample"]}).json()
    assert [e["n"] for e in one] == [bad["n"]]


def test_every_link_is_an_image(client, run):
    for entry in client.get("/api/v1/images", params={"run": run}).json()[2:5]:
        for kind, link in entry["links"].items():
            response = client.get(link)
            assert response.status_code == 200
            assert response.headers["content-type"] in ("image/png", "image/jpeg")
            assert opened(response).shape[:2] == (64, 64), kind


def test_the_overlay_depends_on_its_strength(client, run):
    link = f"/api/v1/images/{run}/5/overlay"
    cold, hot = (opened(client.get(link, params={"strength": s})).astype(int) for s in (0, 1))
    assert np.abs(cold - hot).mean() > 30


def test_what_does_not_count_is_grey_in_heat_and_overlay(serve, tmp_path):
    store = Store(tmp_path / "runs")
    run = run_id(fake_results.save(store, "patchcore", task="bottle", values={"image_auroc": 0.9}).spec)
    (folder,) = store.root.glob("**/images")
    region = np.zeros((64, 64), np.uint8)
    region[:, :32] = 255
    Image.fromarray(region).save(folder / "05_region.png")
    client = serve(store)
    heat, overlay = (opened(client.get(f"/api/v1/images/{run}/5/{kind}")) for kind in ("heat", "overlay"))
    assert (heat[:, 32:] == colormap.IGNORED).all()
    assert not (heat[:, :32] == colormap.IGNORED).all(axis=2).any()
    assert (np.ptp(overlay[:, 32:], axis=2) == 0).all()


def test_an_unchanged_image_is_not_sent_again(client, run):
    link = f"/api/v1/images/{run}/5/overlay"
    tag = client.get(link).headers["etag"]
    again = client.get(link, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(link, params={"strength": 0.1}, headers={"if-none-match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/images/{run}/0/mask", 404),  # a good image
        ("/api/v1/images/{run}/99/input", 404),
        ("/api/v1/images/{run}/-1/input", 422),
        ("/api/v1/images/{run}/0/result.json", 422),
        ("/api/v1/images/{run}/0/..%2f..%2fresult.json", 404),
        ("/api/v1/images/..%2f{run}/0/input", 404),
        ("/api/v1/images/../0/input", 404),
        ("/api/v1/images", 422),
    ],
)
def test_no_other_file_can_be_read(client, run, path, status):
    assert client.get(path.format(run=run)).status_code == status


def test_a_damaged_index_is_reported(client, filled, run):
    from iadbe.results.index import RunQuery

    (cached,) = client.server.run_cache.select(RunQuery(("mvtec_ad",), ("bottle",), detector=("patchcore",)))
    file = filled.root / cached.folder / "images/images.json"
    text = file.read_text()
    file.write_text('[{"n": 1}]')
    response = client.get("/api/v1/images", params={"run": run})
    file.write_text(text)
    assert response.status_code == 422
    assert str(filled.root) not in response.text
