import json
import re

import pytest

from browser import listening
from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from iadbe.web.drawn_regions import Drawing, DrawnRegions
from part_images import draw_mvtec, draw_parts
from uploads import zip_folder


def request_of(text):
    return json.loads(re.search(r'id="request">(.*?)</script>', text)[1])


def test_the_address_fills_the_form(client):
    response = request_of(client.get("/new?detector=padim&detector=dfm&data=toy&setting=zero_shot").text)
    assert response["grid"] == {"detectors": ["padim", "dfm"], "data": ["toy"], "settings": ["zero_shot"]}
    assert request_of(client.get("/new").text)["grid"]["settings"] == ["vanilla"]


def test_an_earlier_job_fills_the_form(serve, tmp_path):
    store = Store(tmp_path / "runs")
    grid = {"detectors": [{"name": "padim", "params": {"backbone": "</script><b>"}}], "data": ["toy"]}
    with Queue(store) as queue:
        job = queue.add(grid, {"threads": 1, "command": "x"}, title="again")
    text = serve(store).get(f"/new?job={job.id}").text
    found = request_of(text)
    assert found["protocol"]["kind"] == "uniform"
    assert {k: v for k, v in found.items() if k != "protocol"} == {
        "grid": grid,
        "options": {"threads": 1},
        "title": "again",
    }
    assert "</script><b>" not in text
    assert serve(store).get("/new?job=000000000000").status_code == 404


def test_the_protocol_of_an_earlier_job_fills_its_fields(serve, tmp_path):
    store = Store(tmp_path / "runs")
    grid = {
        "detectors": ["padim"],
        "data": ["toy"],
        "protocol": "uniform@512x256,pad,tiles=128/16,native",
        "budget": "10m",
    }
    with Queue(store) as queue:
        job, old = queue.add(grid, {}), queue.add({**grid, "protocol": "uniform@7"}, {})
    found = request_of(serve(store).get(f"/new?job={job.id}").text)["protocol"]
    assert (found["size"], found["fit"], found["tiles"], found["overlap"]) == ("512x256", "pad", "128", "16")
    assert (found["budget"], found["native"], found["align"]) == ("600s", True, "none")
    assert "at least 32" in request_of(serve(store).get(f"/new?job={old.id}").text)["protocol"]["error"]


def plan(page):
    return page.locator("#plan")


def box(page, name):
    return page.locator(f"input[type=checkbox][value={name}]")


def test_choose_plan_and_start(visit, tmp_path):
    draw_mvtec(tmp_path / "nuts")
    draw_mvtec(tmp_path / "nuts", "bolt")
    store = Store(tmp_path / "runs")
    with listening(store, data_roots={"nuts": tmp_path / "nuts"}) as address:
        page = visit(f"{address}/new")
        plan(page).get_by_text("Choose data and a detector").wait_for()
        box(page, "nuts").check()
        page.get_by_label("Find a detector").fill("gauss")
        assert box(page, "patchcore").is_hidden()
        box(page, "padim").check()
        plan(page).get_by_text("2 runs").wait_for()
        page.locator("#detectors-chosen summary").click()
        page.get_by_label("dims").fill("8, 16")  # several values are a sweep
        plan(page).get_by_text("4 runs").wait_for()
        box(page, "bolt").uncheck()
        plan(page).get_by_text("2 runs").wait_for()
        box(page, "zero_shot").check()
        plan(page).get_by_text("1 skipped").click()
        plan(page).get_by_text("demands zero-shot").first.wait_for()
        page.get_by_label("Seeds").fill("0-2")
        plan(page).get_by_text("6 runs").wait_for()
        page.get_by_label("dims").fill("many")
        plan(page).get_by_text("dims").wait_for()
        assert page.get_by_role("button", name="Start").is_disabled()
        page.complaints.clear()  # the browser names the refused plan
        page.get_by_label("dims").fill("8")
        page.get_by_label("Input size").fill("64")
        page.get_by_label("Budget of a fit").fill("10 m")
        page.get_by_text("Stored as uniform@64+600s.").wait_for()
        page.get_by_label("Other aspect ratios").select_option("pad")
        page.get_by_text("Alignment, tiles and precision").click()
        page.get_by_label("Tiles, pixels").fill("16")
        page.locator("#tiles-error", has_text="at least 32 pixels").wait_for()
        assert page.get_by_role("button", name="Start").is_disabled()
        page.get_by_label("Tiles, pixels").fill("32")
        page.get_by_text("Stored as uniform@64,pad,tiles=32/4+600s.").wait_for()
        page.get_by_label("Metrics", exact=True).fill("image_auroc, image_overkil")
        plan(page).get_by_text("overkil").first.wait_for()
        page.complaints.clear()
        page.get_by_label("Metrics", exact=True).fill("image_auroc, image_overkill")
        page.get_by_label("Title").fill("A first one")
        page.get_by_role("button", name="Start 3 runs").click()
        page.wait_for_url("**/jobs/*")
        page.get_by_role("heading", name="A first one").wait_for()
    with Queue(store) as queue:
        (job,), _ = queue.list_jobs()
    assert job.requested["detectors"] == [{"name": "padim", "params": {"dims": 8}}]
    assert job.requested["data"] == [{"name": "nuts", "categories": ["nut"]}]
    assert (job.requested["seeds"], job.requested["protocol"]) == ([0, 1, 2], "uniform@64,pad,tiles=32/4+600s")
    assert [s["name"] for s in job.requested["settings"]] == ["vanilla", "zero_shot"]
    assert job.requested["metrics"] == ["image_auroc", "image_overkill"]
    assert job.how["keep_model"]


def test_uploaded_data_can_be_chosen_at_once(visit, tmp_path):
    archive = zip_folder(draw_parts(tmp_path / "parts", 6, 2), tmp_path / "mine.zip")
    with listening(Store(tmp_path / "runs")) as address:
        page = visit(f"{address}/new?detector=padim")
        page.get_by_role("button", name="Upload a zip").click()
        page.get_by_label("Zip archive").set_input_files(archive)
        page.get_by_role("button", name="Upload", exact=True).click()
        plan(page).get_by_text("1 run", exact=True).wait_for()
        assert box(page, "mine").is_checked()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screen(visit, live, width):
    page = visit(f"{live}/new?detector=padim&data=toy", width=width)
    plan(page).get_by_text("4 runs").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_drawn_region_is_used_unless_another_is_chosen(visit, tmp_path):
    draw_mvtec(tmp_path / "nuts")
    store = Store(tmp_path / "runs")
    half = {"kind": "ignore", "form": "rectangle", "points": [[32, 0], [64, 64]]}
    drawing = Drawing.model_validate({"size": [64, 64], "shapes": [half]})
    DrawnRegions(store.root).save("nuts", "nut", drawing, "")
    with listening(store, data_roots={"nuts": tmp_path / "nuts"}) as address:
        page = visit(f"{address}/new?detector=padim&data=nuts")
        plan(page).get_by_text("50 % of an image's pixels count").wait_for()
        page.locator("#data-chosen summary").click()
        page.get_by_label("What counts").select_option("none")
        plan(page).get_by_text("50 % of").wait_for(state="detached")
        page.get_by_label("What counts").select_option("ignore")
        plan(page).get_by_text("50 % of").wait_for()
        page.get_by_role("button", name="Start 1 run").click()
        page.wait_for_url("**/jobs/*")
    with Queue(store) as queue:
        (job,), _ = queue.list_jobs()
    assert job.requested["data"] == [{"name": "nuts", "region": "ignore"}]
    assert job.grid["data"][0]["params"]["ignore"].endswith(".json")
