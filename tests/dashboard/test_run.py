import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import fake_results
from browser import listening
from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from iadbe.runtime.inspector import Inspector
from iadbe.seeds import run_id


def test_parameters_and_metrics_are_shown(client, ids):
    text = client.get(f"/runs/{ids.of('padim', 'cable')}").text
    assert "padim on cable" in text
    assert "0.8900" in text
    assert "iadbe train --detector padim --data mvtec_ad --data.root DIR" in text
    assert "iadbe benchmark grid.yaml" in text
    assert "AMD EPYC" in text
    assert "torch 2.8.0" in text
    assert client.get("/runs/nothing").status_code == 404


def test_parameters_that_are_not_the_default_are_marked(serve, tmp_path):
    store = Store(tmp_path / "runs")
    run = fake_results.result("padim", detector_params={"dims": 50, "sigma": 4.0})
    store.save(run)
    text = serve(store).get(f"/runs/{run_id(run.spec)}").text
    rows = {r[0]: "not the default" in r[1] for r in re.findall(r'<th scope="row">(dims|sigma)</th>(.*?)</tr>', text)}
    assert rows == {"dims": True, "sigma": False}


def test_a_run_that_failed_shows_why_and_no_charts(client, ids):
    text = client.get(f"/runs/{ids.of('stfpm', 'bottle')}").text
    assert "killed at 4.1 GB" in text
    assert 'class="chart' not in text


def test_names_are_escaped(serve, tmp_path):
    store = Store(tmp_path / "runs")
    evil = '"><script>alert(1)</script>'
    run = fake_results.result("padim", evil, notes=(evil,), environment={"command": evil, evil: evil})
    store.save(run)
    text = serve(store).get(f"/runs/{run_id(run.spec)}").text
    assert "<script>alert" not in text
    assert text.count("alert(1)") > 3


def numbers(page):
    return [page.locator(f"#{name} small").inner_text() for name in ("escapes", "overkill")]


def test_the_threshold_changes_the_error_rates(visit, live, ids):
    page = visit(f"{live}/runs/{ids.of('padim', 'bottle')}")
    page.locator("#escapes small").wait_for()
    assert page.locator("#histogram[data-ready]").wait_for() is None
    before = numbers(page)
    page.get_by_label("Threshold", exact=True).fill("1000")
    assert numbers(page)[0] == "30 of 30"
    assert numbers(page)[1] == "0 of 20"
    page.get_by_label("Threshold", exact=True).fill("0")
    assert numbers(page) == ["0 of 30", "20 of 20"]
    page.get_by_role("button", name="Best F1").click()
    assert numbers(page) == before
    page.get_by_role("button", name="No escapes").click()
    assert numbers(page)[0] == "0 of 30"
    page.get_by_label("Threshold as a number").fill("1.5")
    page.keyboard.press("Enter")
    scores = [s for s in fake_results.scores("bottle", seed=0)]
    lost = sum(s.defect != "good" and s.score < 1.5 for s in scores)
    assert numbers(page)[0] == f"{lost} of 30"


def test_curves_can_be_chosen(visit, live, ids):
    page = visit(f"{live}/runs/{ids.of('padim', 'bottle')}")
    page.locator("#curve[data-ready]").wait_for()
    page.get_by_role("button", name="PR", exact=True).click()
    page.locator("#curve .ytitle", has_text="Precision").wait_for()
    page.get_by_role("button", name="PRO").click()
    page.locator("#curve .annotation", has_text="no stored PRO curve").wait_for()


def test_images_are_sorted_by_mistake_and_show_verdicts(visit, live, ids):
    page = visit(f"{live}/runs/{ids.of('patchcore', 'bottle')}")
    tiles = page.locator("#tiles .tile")
    tiles.first.wait_for()
    assert tiles.count() == 12
    assert page.locator("#shown").inner_text() == "12 of 12 stored, 0 of them mistakes"
    page.get_by_label("Threshold", exact=True).fill("1000")
    assert "9 of them mistakes" in page.locator("#shown").inner_text()
    assert "missed" in tiles.first.inner_text()
    page.get_by_label("Show", exact=True).select_option("good")
    assert tiles.count() == 3
    assert "passed" in tiles.first.inner_text()
    page.get_by_label("Show", exact=True).select_option("bad")
    page.get_by_label("Order").select_option("ascending")
    found = [float(t) for t in page.locator("#tiles .score").all_inner_texts()]
    assert found == sorted(found)
    page.get_by_label("Opacity of the heat map").fill("20")
    assert tiles.first.locator(".heat").evaluate("e => getComputedStyle(e).opacity") == "0.2"
    tiles.first.locator(".outline:not([hidden])").wait_for()
    tiles.first.get_by_role("button").click()
    page.get_by_role("dialog").get_by_text("Close").click()
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.slow
def test_a_model_is_exported_and_downloaded_from_its_page(visit, fitted, tmp_path):
    pytest.importorskip("onnxruntime")
    store = Store(tmp_path / "runs")
    shutil.copytree(fitted.store.root, store.root)
    with listening(store) as address:
        page = visit(f"{address}/runs/{fitted.run}")
        page.get_by_role("link", name="Download", exact=True).click()
        page.locator("#export:not([hidden])").wait_for()
        page.get_by_label("Format").select_option("torch")
        assert page.get_by_label("Precision of the weights").is_disabled()
        page.get_by_label("Format").select_option("onnx")
        page.get_by_role("button", name="Export").click()
        page.locator("#under-way [data-job]").get_by_text("Waiting for a worker").first.wait_for()
        page.reload()  # the job is found again
        page.locator("#under-way [data-job]").wait_for()
        command = [sys.executable, "-m", "iadbe", "worker", "--store", str(store.root), "--until-empty"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ) as worker:
            page.locator("#under-way", has_text=re.compile("Step [12] of 3")).wait_for(timeout=90_000)
            row = page.locator('#files [data-name="onnx-fp32"]')
            row.wait_for(timeout=120_000)
            assert worker.wait(60) == 0
        assert page.locator("#under-way [data-job]").count() == 0
        assert "scores within" in row.inner_text()
        with page.expect_download() as started:
            row.get_by_role("link", name="Download onnx-fp32").click()
        started.value.save_as(tmp_path / "files.zip")
        with zipfile.ZipFile(tmp_path / "files.zip") as archive:
            (model,) = (name for name in archive.namelist() if name.endswith(".onnx"))
            archive.extract(model, tmp_path)
        assert Inspector(tmp_path / model).card["about"]["run"] == fitted.run
        page.once("dialog", lambda dialog: dialog.accept())
        row.get_by_role("button", name="Remove onnx-fp32").click()
        row.wait_for(state="detached")


def test_why_an_export_failed_is_said_on_the_page(visit, fitted, tmp_path):
    store = Store(tmp_path / "runs")
    shutil.copytree(fitted.store.root, store.root)
    with listening(store) as address, Queue(store) as queue:
        page = visit(f"{address}/runs/{fitted.run}")
        page.locator("#export:not([hidden])").wait_for()
        page.get_by_label("Licences").select_option("noncommercial")
        page.get_by_role("button", name="Export").click()
        page.locator("#under-way [data-job]").wait_for()
        job = queue.take("somebody")
        assert job.grid["export"]["allow"] == ["noncommercial"]
        queue.end(job, "failed", "a licence forbids commercial use: add --allow noncommercial.")
        page.get_by_role("alert").get_by_text("A licence forbids commercial use").wait_for()
        page.goto(f"{address}/jobs/{job.id}")
        page.get_by_role("link", name="To the files of the model").click()
        page.wait_for_url(f"**/runs/{fitted.run}#download")
