import csv
import io
import json
import shutil

import pytest

import fake_results
from iadbe.running.store import Store
from iadbe.web import leaderboard, run_cache


def test_it_ranks_and_lists_the_choices(client):
    response = client.get("/api/v1/leaderboard").json()
    assert [t["dataset"] for t in response["tables"]] == ["mvtec_ad", "visa"]
    first = response["tables"][0]
    assert [row["detector"]["text"] for row in first["rows"]] == ["patchcore", "padim", "stfpm"]
    best = first["rows"][0]["image_auroc"]
    assert best["best"]
    assert best["value"] == pytest.approx((0.92 + 0.91 + 0.90) / 3)
    assert first["rows"][2]["image_auroc"]["value"] is None
    assert response["choices"]["dataset"] == ["mvtec_ad", "visa"]
    assert "metal_nut" in response["choices"]["category"]
    assert response["runs"] == 8
    assert "papers" in response["reported"]


def test_it_can_be_filtered(client):
    params = {"dataset": "mvtec_ad", "detector": ["padim", "patchcore"], "metric": "image_f1max", "category": "cable"}
    (found,) = client.get("/api/v1/leaderboard", params=params).json()["tables"]
    assert len(found["rows"]) == 2
    names = [c["name"] for c in found["columns"]]
    assert "image_f1max" in names
    assert "image_auroc" not in names
    assert found["rows"][1]["image_f1max"]["value"] == pytest.approx(0.79)


def test_by_category(client):
    params = {"dataset": "mvtec_ad", "by": "category", "metric": "image_auroc"}
    (found,) = client.get("/api/v1/leaderboard", params=params).json()["tables"]
    assert [c["name"] for c in found["columns"]] == ["detector", "bottle", "cable", "metal_nut", "mean"]
    assert found["metric"] == "image_auroc"


def test_intervals_and_reported_numbers(client):
    params = {"dataset": "mvtec_ad", "intervals": True, "reported": "papers", "category": "bottle"}
    (found,) = client.get("/api/v1/leaderboard", params=params).json()["tables"]
    cell = found["rows"][0]["image_auroc"]
    assert cell["low"] < cell["high"]
    assert "image_auroc_reported" in [c["name"] for c in found["columns"]]
    (without,) = client.get("/api/v1/leaderboard", params={**params, "intervals": False}).json()["tables"]
    assert without["rows"][0]["image_auroc"]["low"] is None


@pytest.mark.parametrize(
    ("form", "media"), [("csv", "text/csv"), ("markdown", "text/markdown"), ("latex", "application/x-latex")]
)
def test_files_contain_what_is_shown(client, form, media):
    response = client.get(
        "/api/v1/leaderboard", params={"dataset": "mvtec_ad", "metric": "image_auroc", "format": form}
    )
    assert response.headers["content-type"].startswith(media)
    assert "attachment" in response.headers["content-disposition"]
    assert "patchcore" in response.text
    if form == "csv":
        shown = client.get("/api/v1/leaderboard", params={"dataset": "mvtec_ad", "metric": "image_auroc"}).json()
        values = [row["image_auroc"]["value"] for row in shown["tables"][0]["rows"]]
        read = [row["image_auroc"] for row in csv.DictReader(io.StringIO(response.text))]
        assert [float(v) if v else None for v in read] == values


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"dataset": "mvtek_ad"}, "Did you mean mvtec_ad"),
        ({"metric": "image_aurok"}, "Did you mean image_auroc"),
        ({"reported": "paperz"}, "Did you mean papers"),
        ({"seed": 3}, "seed 3"),
        ({"detector": "os:system"}, "os:system"),
    ],
)
def test_unknown_names(client, params, word):
    response = client.get("/api/v1/leaderboard", params=params)
    assert response.status_code == 404
    assert word in response.json()["detail"]


def test_json_has_no_nan(client):
    json.loads(client.get("/api/v1/leaderboard").text, parse_constant=lambda name: pytest.fail(name))


def names(client, **params):
    (found,) = client.get("/api/v1/leaderboard", params={"dataset": "mvtec_ad", **params}).json()["tables"]
    return [row["detector"]["text"] for row in found["rows"]]


def test_rows_are_filtered_and_sorted_in_files_too(client):
    assert names(client, sort="image_auroc") == ["padim", "patchcore", "stfpm"]  # what has no number is last
    assert names(client, sort="-detector") == ["stfpm", "patchcore", "padim"]
    assert names(client, find="PAD") == ["padim"]
    assert names(client, kind="student-teacher") == ["stfpm"]
    assert client.get("/api/v1/leaderboard", params={"sort": "moon"}).status_code == 404
    text = client.get("/api/v1/leaderboard?dataset=mvtec_ad&sort=image_auroc&format=csv").text
    assert text.index("padim") < text.index("patchcore")


def test_a_single_row_is_not_marked_as_best(client):
    (found,) = client.get("/api/v1/leaderboard?dataset=mvtec_ad&find=padim").json()["tables"]
    assert not found["rows"][0]["image_auroc"]["best"]


def test_a_setting_may_be_named_with_its_parameters(serve, tmp_path):
    import fake_results
    from iadbe.running.store import Store

    store = Store(tmp_path / "runs")
    for k in (1, 4):
        store.save(fake_results.result("padim", setting="few_shot", setting_params={"k": k}))
    here = serve(store)
    titles = [t["setting"] for t in here.get("/api/v1/leaderboard?setting=few_shot").json()["tables"]]
    assert titles == ["few_shot(k=1)", "few_shot(k=4)"]
    (one,) = here.get("/api/v1/leaderboard", params={"setting": "few_shot(k=4)"}).json()["tables"]
    assert one["setting"] == "few_shot(k=4)"
    assert here.get("/api/v1/leaderboard", params={"setting": "few_shot(k=9)"}).status_code == 404


@pytest.mark.parametrize("intervals", [False, True])
def test_kept_tables_are_dropped_when_a_run_changes_or_is_removed(tmp_path, serve, monkeypatch, intervals):
    monkeypatch.setattr(run_cache, "MAX_AGE", 0.0)
    store = Store(tmp_path / "runs")
    scores = {"scores": fake_results.scores()} if intervals else {}
    for detector, value in (("padim", 0.8), ("dfm", 0.7)):
        store.save(fake_results.result(detector, values={"image_auroc": value}, **scores))
    store.save(fake_results.result("padim", "candle", {"image_auroc": 0.5}, dataset="visa"))
    browser = serve(store)
    asked = [f"/api/v1/leaderboard?dataset=mvtec_ad&by={by}&intervals={intervals}" for by in ("metric", "category")]

    def best():
        tables = [browser.get(address).json()["tables"] for address in asked]
        names = [next(c["name"] for c in table["columns"][1:]) for (table,) in tables]
        found = [
            [(row["detector"]["text"], row[name]["value"]) for row in table["rows"]]
            for (table,), name in zip(tables, names, strict=True)
        ]
        assert found[0] == found[1]
        return found[0]

    assert best() == best() == [("padim", 0.8), ("dfm", 0.7)]
    store.save(fake_results.result("dfm", values={"image_auroc": 0.9}, **scores))
    assert best() == best() == [("dfm", 0.9), ("padim", 0.8)]
    shutil.rmtree(store.path(fake_results.spec("dfm")))
    assert best() == [("padim", 0.8)]


def test_kept_tables_differ_with_all_that_is_asked(client):
    base = "/api/v1/leaderboard?dataset=mvtec_ad&category=bottle"
    more = (
        "",
        "&percent=true",
        "&intervals=true",
        "&reported=papers",
        "&by=category",
        "&metric=image_f1max",
        "&seed=0",
    )
    texts = [client.get(base + one).text for one in more]
    assert len(set(texts[:-1])) == len(texts) - 1
    assert [client.get(base + one).text for one in more] == texts


def test_a_table_is_made_once_while_its_runs_are_unchanged(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(run_cache, "MAX_AGE", 0.0)
    store = Store(tmp_path / "runs")
    for dataset in ("mvtec_ad", "visa"):
        store.save(fake_results.result("padim", dataset=dataset))
    made = []
    original = leaderboard.ranking_of
    monkeypatch.setattr(leaderboard, "ranking_of", lambda c, *a, **k: made.append(c.dataset) or original(c, *a, **k))
    browser = serve(store)
    for _ in range(3):
        browser.get("/api/v1/leaderboard")
    assert sorted(made) == ["mvtec_ad", "visa"]
    store.save(fake_results.result("dfm", dataset="visa"))
    browser.get("/api/v1/leaderboard")
    assert sorted(made) == ["mvtec_ad", "visa", "visa"]
