import signal
import subprocess
import sys

import pytest

from browser import listening
from iadbe.dashboard.jobs import summary_text
from iadbe.jobs.queue import JobUpdate, Queue
from iadbe.running.store import Store
from part_images import draw_mvtec

GRID = {"detectors": ["padim", {"name": "dfm"}], "data": [{"name": "toy"}]}
ABOUT = {"detector": "padim", "dataset": "toy", "setting": "vanilla", "task": "metal", "seed": 0, "folder": "padim-x"}


def test_the_list_shows_progress(serve, tmp_path):
    store = Store(tmp_path / "runs")
    with Queue(store) as queue:
        queue.add(GRID, title="first")
        queue.beat(queue.take("w"), counts={"total": 8, "done": 3, "failed": 1})
        queue.add(GRID)
    text = serve(store).get("/jobs").text
    assert text.index("padim, dfm on toy") < text.index("first")  # the newest is first; without a title, what it does
    assert "4 of 8" in text
    assert "1 failed" in text
    queued = serve(store).get("/jobs?state=queued").text
    assert "first" not in queued
    assert serve(store).get("/jobs?state=none").status_code == 422
    assert "No job is done" in serve(store).get("/jobs?state=done").text


def test_jobs_are_summarized(tmp_path):
    with Queue(Store(tmp_path / "runs")) as queue:
        many = queue.add({"detectors": ["a", "b", "c", "d"], "data": "x"})
        assert summary_text(many) == "a, b, c and 1 more on x"
        assert summary_text(queue.add({})) == ""


def test_titles_are_escaped(serve, tmp_path):
    store, evil = Store(tmp_path / "runs"), "</script><script>alert(1)</script>"
    with Queue(store) as queue:
        job = queue.add({"detectors": [evil], "data": [evil]}, {"engine": evil}, title=evil)
    for path in (f"/jobs/{job.id}", "/jobs", f"/new?job={job.id}", "/training"):
        text = serve(store).get(path).text
        assert "alert(1)" in text
        assert "<script>alert" not in text


@pytest.fixture
def response(tmp_path):
    """A queue with a job, taken by a worker that is this test."""
    store = Store(tmp_path / "runs")
    (store.root / ".logs").mkdir(parents=True)
    with Queue(store) as queue:
        queue.add(GRID, title="Watched")
        yield store, queue, queue.take("me")


def test_events_update_the_page(visit, response):
    store, queue, job = response
    log = store.root / ".logs/padim-x.log"
    log.write_text("the beginning\n")
    queue.beat(
        job,
        [
            JobUpdate("plan", {"runs": 2, "skipped": 0, "some": [], "notes": []}),
            JobUpdate("planned", {"total": 2, "already": 0}),
        ],
    )
    queue.beat(job, [JobUpdate("started", ABOUT, "r1")], {"total": 2})
    with listening(store) as address:
        page = visit(f"{address}/jobs/{job.id}")
        row = page.locator("#runs tbody tr")
        page.get_by_text("live", exact=True).wait_for()
        page.locator("#log", has_text="the beginning").wait_for()  # of a run that began before the page
        losses = [JobUpdate("loss", {"value": 1 / n, "n": n}, "r1") for n in range(1, 6)]
        progress = JobUpdate("progress", {"phase": "fit", "done": 3, "total": 9}, "r1", "progress fit")
        queue.beat(job, [progress, JobUpdate("memory", {"bytes": 512_000_000}, "r1"), *losses], {"total": 2})
        row.get_by_text("fit 3 of 9").wait_for()
        row.get_by_text("512 MB").wait_for()
        row.get_by_role("img", name="loss, from 1.000 to 0.200").wait_for()
        page.locator("#loss[data-ready] .scatterlayer path").first.wait_for()
        assert page.locator("#loss .svg-container").bounding_box()["height"] > 200
        with log.open("a") as opened:
            opened.write("the end\n")
        page.locator("#log", has_text="the end").wait_for()
        done = {**ABOUT, "error": "", "seconds": 2.0, "values": {"image_auroc": 0.875}}
        queue.beat(job, [JobUpdate("finished", done, "r1")], {"total": 2, "done": 1})
        row.get_by_text("0.875").wait_for()
        page.get_by_text("1 of 2").wait_for()
        queue.end(job, "failed", "no power")
        page.get_by_role("alert").get_by_text("No power").wait_for()
        assert page.get_by_role("button", name="Stop").is_hidden()
        page.get_by_role("button", name="Remove").wait_for()
        page.locator("#connection").wait_for(state="hidden")


def test_it_reconnects_after_a_restart_of_the_server(visit, response):
    store, queue, job = response
    with listening(store) as address:
        port = int(address.rpartition(":")[2])
        page = visit(f"{address}/jobs/{job.id}")
        page.get_by_text("live", exact=True).wait_for()
    page.get_by_text("connection lost").wait_for()
    page.complaints.clear()  # the browser names what it could not reach
    queue.beat(job, [JobUpdate("started", ABOUT, "r1")], {"total": 2})  # the worker works on meanwhile
    with listening(store, port=port):
        page.get_by_text("Connected again.").wait_for()
        page.locator("#runs tbody tr").get_by_text("running").wait_for()
        queue.beat(job, [JobUpdate("progress", {"phase": "fit", "done": 1, "total": 2}, "r1", "progress fit")])
        page.get_by_text("fit 1 of 2").wait_for()
        page.complaints.clear()
    page.context.close()


def test_the_list_refreshes_itself(visit, response):
    store, queue, job = response
    with listening(store) as address:
        page = visit(f"{address}/jobs")
        page.locator("#live").get_by_text("running").wait_for()
        queue.end(job, "done")
        page.locator("#live").get_by_text("done").wait_for()


def test_a_real_worker_is_started_watched_and_stopped(visit, tmp_path):
    draw_mvtec(tmp_path / "nuts")
    store = Store(tmp_path / "runs")
    worker = None
    try:
        with listening(store, data_roots={"nuts": tmp_path / "nuts"}) as address:
            page = visit(f"{address}/new?data=nuts&detector=stfpm")
            page.locator("#detectors-chosen summary").click()
            page.get_by_label("epochs", exact=True).fill("100000")
            page.get_by_label("Input size").fill("64")
            page.get_by_role("button", name="Start 1 run").click()
            page.wait_for_url("**/jobs/*")
            page.locator("#state", has_text="queued").wait_for()
            command = [sys.executable, "-m", "iadbe", "worker", "--store", str(store.root), "--device", "cpu"]
            worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            row = page.locator("#runs tbody tr")
            row.get_by_text("of 100000").wait_for(timeout=90_000)
            row.locator(".spark").wait_for(timeout=60_000)
            page.get_by_role("button", name="Stop").click()
            page.locator("#state", has_text="stopped").wait_for(timeout=60_000)
            page.get_by_role("link", name="Run again").click()
            page.locator("#plan").get_by_text("1 run").wait_for()
            page.locator("#detectors-chosen summary").click()
            assert page.get_by_label("epochs", exact=True).input_value() == "100000"
    finally:
        if worker is not None:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
