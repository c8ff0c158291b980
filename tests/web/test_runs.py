import numpy as np
import pytest

from iadbe.web.runs import read_log


def test_the_list(client):
    response = client.get("/api/v1/runs").json()
    assert response["total"] == 8
    dates = [r["date"] for r in response["runs"]]
    assert dates == sorted(dates, reverse=True)
    first = next(r for r in response["runs"] if (r["detector"], r["task"]) == ("patchcore", "bottle"))
    assert first["values"]["image_auroc"] == pytest.approx(0.92)
    assert (first["has_images"], first["has_model"]) == (True, False)


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"dataset": "visa"}, 1),
        ({"state": "failed"}, 1),
        ({"state": "well"}, 7),
        ({"find": "METAL"}, 2),
        ({"detector": ["padim", "stfpm"]}, 5),
        ({"seed": 0, "category": "bottle"}, 3),
        ({"find": "%"}, 0),
    ],
)
def test_it_can_be_filtered(client, params, count):
    assert client.get("/api/v1/runs", params=params).json()["total"] == count


def test_it_is_paged_and_sorted(client):
    whole = client.get("/api/v1/runs", params={"sort": "image_auroc"}).json()["runs"]
    values = [r["values"].get("image_auroc") for r in whole]
    assert values[-1] is None  # the failed one
    assert values[:-1] == sorted(values[:-1])
    falling = client.get("/api/v1/runs", params={"sort": "-image_auroc"}).json()["runs"]
    assert falling[-1]["error"]
    parts = [
        client.get("/api/v1/runs", params={"sort": "image_auroc", "limit": 3, "offset": o}).json() for o in (0, 3, 6)
    ]
    assert [r["id"] for p in parts for r in p["runs"]] == [r["id"] for r in whole]
    assert client.get("/api/v1/runs", params={"sort": "moon"}).status_code == 404


def test_one_run(client, ids):
    name = ids.of("padim", "cable")
    response = client.get(f"/api/v1/runs/{name}").json()
    assert response["spec"]["task"] == "cable"
    assert response["rows"][0][2] == "image_auroc"
    assert response["environment"]["command"] == "iadbe benchmark grid.yaml"
    assert "place" not in response["spec"]
    assert client.get(f"/api/v1/runs/{response['folder']}").json()["run"] == name


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fetc%2fpasswd", ".logs", "%00", "jobs.sqlite", "0" * 12])
@pytest.mark.parametrize("rest", ["", "/scores", "/curves", "/log"])
def test_no_name_reads_other_files(client, name, rest):
    response = client.get(f"/api/v1/runs/{name}{rest}")
    assert response.status_code == 404
    assert "root:" not in response.text


def test_scores_and_their_threshold(client, ids):
    response = client.get(f"/api/v1/runs/{ids.of('patchcore', 'bottle')}/scores").json()
    assert len(response["scores"]) == 20
    limit = response["thresholds"]["bottle"]
    assert all((s["score"] >= limit) == (s["defect"] != "good") for s in response["scores"])  # they lie far apart


def test_curves_equal_direct_counting(client, ids):
    run = f"/api/v1/runs/{ids.of('padim', 'bottle')}"
    scores = client.get(f"{run}/scores").json()["scores"]
    (curve,) = client.get(f"{run}/curves").json()
    good = np.array([s["score"] for s in scores if s["defect"] == "good"])
    bad = np.array([s["score"] for s in scores if s["defect"] != "good"])
    assert (curve["good"], curve["defective"]) == (len(good), len(bad))
    assert len(curve["points"]) == 50
    for point in curve["points"]:
        found, wrong = (bad >= point["threshold"]).sum(), (good >= point["threshold"]).sum()
        assert point["recall"] == pytest.approx(found / len(bad))
        assert point["overkill"] == pytest.approx(wrong / len(good))
        assert point["precision"] == pytest.approx(found / (found + wrong))
    assert (curve["points"][-1]["recall"], curve["points"][-1]["overkill"]) == (1.0, 1.0)


def test_a_failed_run_has_no_curve(client, ids):
    name = ids.of("stfpm", "bottle")
    assert client.get(f"/api/v1/runs/{name}/curves").json() == []
    assert client.get(f"/api/v1/runs/{name}/scores").json() == {"scores": [], "thresholds": {}}
    assert client.get(f"/api/v1/runs/{name}").json()["error"].startswith("killed")


def test_the_log_is_read_in_parts(client, filled, ids, tmp_path):
    run = f"/api/v1/runs/{ids.of('padim', 'cable')}/log"
    assert client.get(run).json() == {"text": "", "start": 0, "end": 0}
    spec = next(r.spec for r in filled if (r.spec.detector, r.spec.task) == ("padim", "cable"))
    filled.log(spec).parent.mkdir(exist_ok=True)
    filled.log(spec).write_bytes(b"one\ntwo\xff\n")
    assert client.get(run).json() == {"text": "one\ntwo�\n", "start": 0, "end": 9}
    assert client.get(run, params={"start": 4}).json()["text"] == "two�\n"
    assert client.get(run, params={"start": -5}).json()["start"] == 4
    assert client.get(run, params={"start": 99}).json() == {"text": "", "start": 9, "end": 9}
    assert read_log(filled.log(spec), 0, most=3)["text"] == "one"
    filled.log(spec).unlink()


def test_losses_and_pro_curve(serve, tmp_path):
    import fake_results
    from iadbe.running.store import Store
    from iadbe.seeds import run_id

    store = Store(tmp_path / "runs")
    run = fake_results.result("stfpm", scores=fake_results.scores())
    folder = store.save(run)
    here, address = serve(store), f"/api/v1/runs/{run_id(run.spec)}"
    assert here.get(f"{address}/losses").json() == []
    assert here.get(f"{address}/curves").json()[0]["regions"] == []
    (folder / "losses.csv").write_text("step,loss\n1,0.5\n2,nan\n3,0.25\n")
    (folder / "curves.json").write_text('{"bottle": {"overkill": [0, 1], "overlap": [0.5, 1]}}')
    assert here.get(f"{address}/losses").json() == [{"step": 1, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    (curve,) = here.get(f"{address}/curves").json()
    assert curve["regions"] == [{"overkill": 0, "overlap": 0.5}, {"overkill": 1, "overlap": 1}]
    (folder / "losses.csv").write_text("<damaged>")
    (folder / "curves.json").write_text('{"bottle": 3}')
    assert here.get(f"{address}/losses").json() == []
    assert here.get(f"{address}/curves").json()[0]["regions"] == []
