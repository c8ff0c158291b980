import json

import pytest
import yaml

from iadbe.jobs.queue import JobUpdate
from iadbe.running.store import Store

GRID = {"detectors": [{"name": "padim", "dims": 16}], "data": [{"name": "toy", "categories": ["metal", "fabric"]}]}


def range_of(count):
    return list(range(count))


@pytest.fixture
def jobs(serve, tmp_path):
    return serve(Store(tmp_path / "runs"))


def test_a_plan_runs_nothing(jobs):
    answer = jobs.post("/api/v1/plan", json={"grid": {**GRID, "seeds": [0, 1]}}).json()
    assert (answer["runs"], answer["done"], answer["skipped"]) == (4, 0, 0)
    assert {r["task"] for r in answer["some"]} == {"metal", "fabric"}
    assert jobs.get("/api/v1/jobs").json() == {"total": 0, "jobs": []}
    grid = {**GRID, "settings": [{"name": "few_shot", "k": 2}, "zero_shot"]}
    answer = jobs.post("/api/v1/plan", json={"grid": grid}).json()
    assert answer["skipped"] == len(answer["reasons"]) > 0
    assert answer["reasons"][0]["reason"]


def test_a_job_waits_for_a_worker(jobs):
    answer = jobs.post("/api/v1/jobs", json={"grid": GRID, "options": {"threads": 1}, "title": "first"})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["state"], job["title"], job["grid"], job["runs"]) == ("queued", "first", GRID, [])
    assert job["options"] == {"keep_model": True, "threads": 1}
    assert jobs.get(answer.headers["location"]).json() == job
    listed = jobs.get("/api/v1/jobs", params={"state": "queued"}).json()
    assert [j["id"] for j in listed["jobs"]] == [job["id"]]
    assert jobs.get("/api/v1/jobs", params={"state": "done"}).json()["total"] == 0
    file = jobs.get(f"/api/v1/jobs/{job['id']}/grid")
    assert yaml.safe_load(file.text) == GRID
    assert "job.yaml" in file.headers["content-disposition"]


def test_runs_are_derived_from_events(jobs):
    name = jobs.post("/api/v1/jobs", json={"grid": GRID}).json()["id"]
    queue = jobs.server.queue
    taken = queue.take("w")
    about = {"detector": "padim", "task": "metal", "folder": "padim-x"}
    news = [
        JobUpdate("plan", {"runs": 2, "skipped": 0}),
        JobUpdate("started", about, "r1"),
        JobUpdate("progress", {"phase": "fit", "done": 3, "total": 9}, "r1", "progress fit"),
        JobUpdate("loss", {"value": 0.5, "n": 1}, "r1"),
        JobUpdate("memory", {"bytes": 7}, "r1", "memory"),
        JobUpdate("finished", {**about, "error": "", "seconds": 2.0, "values": {"image_auroc": 1.0}}, "r2"),
    ]
    queue.beat(taken, news, {"total": 2, "done": 1})
    job = jobs.get(f"/api/v1/jobs/{name}").json()
    assert (job["state"], job["total"], job["done"], job["plan"]["runs"]) == ("running", 2, 1, 2)
    first, second = job["runs"]
    assert (first["state"], first["phases"], first["memory"]) == ("running", {"fit": {"done": 3, "total": 9}}, 7)
    assert first["losses"] == [[1, 0.5]]
    assert job["started"] <= first["began"]
    assert (second["state"], second["values"]) == ("done", {"image_auroc": 1.0})
    queue.beat(taken, [JobUpdate("started", about, "r1")])  # once more, by another worker
    assert jobs.get(f"/api/v1/jobs/{name}").json()["runs"][-1]["losses"] == []
    queue.end(taken, "failed", "no power")
    over = jobs.get(f"/api/v1/jobs/{name}").json()
    assert (over["state"], over["error"], [r["id"] for r in over["runs"]]) == ("failed", "no power", ["r2"])


def test_stop_and_remove(jobs):
    name = jobs.post("/api/v1/jobs", json={"grid": GRID}).json()["id"]
    assert jobs.delete(f"/api/v1/jobs/{name}").status_code == 400
    assert jobs.post(f"/api/v1/jobs/{name}/stop").json()["state"] == "stopped"
    assert jobs.delete(f"/api/v1/jobs/{name}").status_code == 204
    assert jobs.get(f"/api/v1/jobs/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"grid": []}, 422),
        ({"grid": {}, "extra": 1}, 422),
        ({"grid": {}}, 400),
        ({"grid": {"detectors": ["padin"], "data": ["toy"]}}, 404),
        ({"grid": {"detectors": ["padim"], "data": ["/etc"]}}, 404),
        ({"grid": {"detectors": ["os:system"], "data": ["toy"]}}, 400),
        ({"grid": GRID, "options": {"features": "/etc"}}, 400),
        ({"grid": {**GRID, "settings": ["zero_shot"]}}, 400),
        ({"grid": GRID, "title": "x" * 201}, 422),
    ],
)
def test_invalid_jobs_are_refused(jobs, body, status):
    answer = jobs.post("/api/v1/jobs", json=body)
    assert answer.status_code == status
    assert jobs.get("/api/v1/jobs").json()["total"] == 0


@pytest.mark.parametrize("name", ["0" * 12, "..", "x", "0" * 13, "%2e%2e"])
def test_invalid_job_ids(jobs, name):
    for answer in (
        jobs.get(f"/api/v1/jobs/{name}"),
        jobs.post(f"/api/v1/jobs/{name}/stop"),
        jobs.delete(f"/api/v1/jobs/{name}"),
    ):
        assert answer.status_code in (404, 405, 422)


def test_responses_hide_data_folders(serve, tmp_path):
    from part_images import draw_parts

    draw_parts(tmp_path / "secret-place", 3, 2)
    jobs = serve(Store(tmp_path / "runs"), data_roots={"parts": tmp_path / "secret-place"})
    answer = jobs.post("/api/v1/jobs", json={"grid": {"detectors": ["padim"], "data": ["parts"]}})
    assert answer.status_code == 201
    assert str(tmp_path) not in answer.text
    assert str(tmp_path / "secret-place") in json.dumps(jobs.server.queue.get(answer.json()["id"]).grid)
    plan = jobs.post("/api/v1/plan", json={"grid": {"detectors": ["padim"], "data": ["parts"]}})
    assert str(tmp_path) not in plan.text


@pytest.mark.parametrize(
    "grid",
    [
        {"detectors": ["padim"], "data": [{"name": "toy", "count": 10**9}]},
        {"detectors": ["padim"], "data": [{"name": "toy", "params": {"count": "1000000000"}}]},
        {
            "detectors": [{"name": "padim", "sweep": {k: list(range(400)) for k in ("dims", "sigma", "seed")}}],
            "data": ["toy"],
        },
        {
            "detectors": [{"name": "padim", "sweep": {k: list(range(30)) for k in ("dims", "sigma", "layers")}}],
            "data": ["toy"],
        },
        {"detectors": ["padim"], "data": [{"name": "toy", "sweep": {"count": list(range(1, 100))}}]},
        {"detectors": ["padim"], "data": ["toy"], "settings": [{"name": "federated", "rounds": 10**8}]},
        {"detectors": ["padim"], "data": ["toy"], "seeds": [10**4000]},
        {"detectors": ["padim"], "data": ["toy"], "protocol": "uniform@100000000"},
        {"detectors": ["padim"] * 400, "data": ["toy"] * 40},
    ],
)
def test_a_grid_that_would_hold_the_server_is_refused_before_it_is_planned(jobs, grid, monkeypatch):
    planned = []
    monkeypatch.setattr(jobs.server.planner, "plan", lambda *given: planned.append(given))
    for path in ("plan", "jobs"):
        answer = jobs.post(f"/api/v1/{path}", content=json.dumps({"grid": grid}))
        assert answer.status_code in (400, 422), answer.text
    assert planned == []


@pytest.mark.parametrize(
    "options", [{"jobs": 2**52}, {"threads": 10**6}, {"images": 10**9}, {"time_limit": 1e300}, {"jobs": True}]
)
def test_options_out_of_range_are_refused(jobs, options):
    assert jobs.post("/api/v1/jobs", json={"grid": GRID, "options": options}).status_code == 400


@pytest.mark.parametrize("title", ['"a\\u0000b"', '"\\ud800"', '"a\\nb"', f'"{"x" * 201}"'])
def test_titles_that_no_database_can_keep_are_refused(jobs, title):
    body = f'{{"grid": {json.dumps(GRID)}, "title": {title}}}'
    answer = jobs.post("/api/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "title" in answer.text or "JSON" in answer.text
