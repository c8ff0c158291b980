import pytest

import fake_results
from iadbe.running.store import Store

KEYS = {
    "btech": ["01", "02", "03"],
    "mvtec3d": ["bagel", "cableGland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire"],
    "mvtec": [
        "screw",
        "pill",
        "capsule",
        "carpet",
        "grid",
        "tile",
        "wood",
        "zipper",
        "cable",
        "toothbrush",
        "transistor",
        "metalNut",
        "bottle",
        "hazelnut",
        "leather",
    ],
    "visa": [
        "candle",
        "capsules",
        "cashew",
        "chewinggum",
        "fryum",
        "macaroni1",
        "macaroni2",
        "pcb1",
        "pcb2",
        "pcb3",
        "pcb4",
        "pipeFryum",
    ],
}
OURS = {"btech": "btad", "mvtec3d": "mvtec_3d", "mvtec": "mvtec_ad", "visa": "visa"}


@pytest.mark.parametrize("name", KEYS)
def test_a_benchmark_has_the_old_keys_and_our_numbers(serve, tmp_path, name):
    store = Store(tmp_path / "runs")
    snake = {k: "".join(f"_{c.lower()}" if c.isupper() else c for c in k) for k in KEYS[name]}
    for n, category in enumerate(snake.values()):
        store.save(fake_results.result("padim", category, {"image_auroc": 0.5 + n / 100}, dataset=OURS[name]))
    store.save(fake_results.result("dfm", snake[KEYS[name][0]], {"image_auroc": 0.25}, dataset=OURS[name]))
    first, second = serve(store).get(f"/api/{name}-benchmark").json()
    assert list(first) == ["model", *KEYS[name], "average"]
    assert first["model"] == "padim"
    assert [first[k] for k in KEYS[name]] == [pytest.approx(0.5 + n / 100) for n in range(len(snake))]
    assert first["average"] == pytest.approx(sum(first[k] for k in KEYS[name]) / len(snake))
    assert (second["model"], second[KEYS[name][0]], second[KEYS[name][1]], second["average"]) == (
        "dfm",
        0.25,
        None,
        None,
    )


def test_pies_and_bars(client):
    assert client.get("/api/pie-data").json() == [
        {"sampleNumber": 5354, "datasetName": "mvtec_ad", "category": 15},
        {"sampleNumber": 10821, "datasetName": "visa", "category": 12},
    ]
    assert client.get("/api/bar-data").json() == [
        {"modelName": "padim", "fileSize": "30MB"},
        {"modelName": "patchcore", "fileSize": "60MB"},
    ]
    found = client.get("/api/advance-pie-dataset").json()
    assert found == [{"name": "Standard Datasets", "value": 2}, {"name": "Custom Datasets", "value": 0}]
    kinds = client.get("/api/advance-pie-model").json()
    assert sum(k["value"] for k in kinds) == 3
    assert all(set(k) == {"name", "value"} for k in kinds)


def test_lines_are_seconds_by_detector(client):
    response = client.get("/api/line-data").json()
    assert response["labels"] == ["padim", "patchcore"]
    assert response["datasets"] == [{"label": "mvtec_ad", "data": [6.0, 6.0]}, {"label": "visa", "data": [2.0, None]}]


def test_the_radar_has_the_two_best(client):
    first, second = client.get("/api/radar-data").json()
    assert (first["label"], second["label"]) == ("patchcore", "padim")
    assert first["data"] == [2.0, 60.0, pytest.approx(0.81)]


def test_custom_data_is_counted(serve, tmp_path):
    store = Store(tmp_path / "runs")
    for task in ("nut", "bolt"):
        given = {"dataset": "folder", "scores": fake_results.scores(task, good=4, bad=3)}
        store.save(fake_results.result("padim", task, **given))
    client = serve(store)
    assert client.get("/api/pie-data").json() == [{"sampleNumber": 14, "datasetName": "folder", "category": 2}]
    assert client.get("/api/advance-pie-dataset").json()[1]["value"] == 1
