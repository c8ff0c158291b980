import pytest

import fake_results
from iadbe.report.charts import pareto_front
from iadbe.results.comparison import compare
from iadbe.running.store import Store
from iadbe.web.statistics import interval_entries, tradeoff_points

ON = {"dataset": "mvtec_ad"}


def test_ranks_over_categories(client):
    (response,) = client.get("/api/v1/leaderboard/ranks", params=ON).json()
    assert response["names"] == ["patchcore", "padim"]
    assert response["mean"] == [1.0, 2.0]
    assert response["letters"] == ["a", "a"]  # three categories can tell nobody apart
    assert response["p"][0][1] == pytest.approx(0.25)  # 2 / 2^3
    assert response["friedman"] is None
    assert client.get("/api/v1/leaderboard/ranks", params={"dataset": "visa"}).json() == []


def test_costs_and_pareto_fronts(client):
    (response,) = client.get("/api/v1/leaderboard/tradeoffs", params=ON).json()
    best, other = response["points"]
    assert best["name"] == "patchcore"
    assert best["costs"]["model_mb"] == pytest.approx(60e6 / 2**20)
    assert other["costs"]["model_mb"] == pytest.approx(30e6 / 2**20)
    assert "model_mb" in best["front"]  # it is better, though larger
    assert "model_mb" in other["front"]  # it is smaller, though worse
    assert other["front"] == ["model_mb"]  # elsewhere they cost the same, and the better one is on the front alone


def test_the_front_of_a_lower_is_better_metric():
    runs = [
        fake_results.result("padim", "bottle", {"image_overkill": 0.1}, latency_ms=9.0, metrics=("image_overkill",)),
        fake_results.result("dfm", "bottle", {"image_overkill": 0.2}, latency_ms=20.0, metrics=("image_overkill",)),
    ]
    (one,) = compare(runs)
    found = {p["name"]: p["front"] for p in tradeoff_points(one, "image_overkill")}
    assert "latency_ms" in found["padim"]
    assert "latency_ms" not in found["dfm"]
    assert pareto_front([(9.0, -0.1), (20.0, -0.2)]) == [0]


def test_intervals_mark_detectors_level_with_the_best(tmp_path, serve):
    store = Store(tmp_path / "runs")
    for detector, shift in (("padim", 3.0), ("dfm", 2.9), ("spade", 0.1)):
        scores = fake_results.scores(shift=shift, seed=1)
        truth, score = [s.defect != "good" for s in scores], [s.score for s in scores]
        pairs = [
            a > b for a, x in zip(score, truth, strict=True) if x for b, y in zip(score, truth, strict=True) if not y
        ]
        store.save(fake_results.result(detector, values={"image_auroc": sum(pairs) / len(pairs)}, scores=scores))
    (response,) = serve(store).get("/api/v1/leaderboard/intervals").json()
    assert {e["name"]: e["level"] for e in response["entries"]} == {"padim": True, "dfm": True, "spade": False}
    assert all(e["low"] <= e["value"] <= e["high"] for e in response["entries"])
    assert "difference from padim (0.983) is not significant" in response["sentence"]
    (one,) = compare(list(store))
    assert interval_entries(one, "pixel_auroc") == []


@pytest.mark.parametrize("what", ["ranks", "tradeoffs", "intervals"])
def test_unknown_names(client, what):
    response = client.get(f"/api/v1/leaderboard/{what}", params={**ON, "metric": "image_moon"})
    assert response.status_code == 404
    assert "image_auroc" in response.json()["detail"]
