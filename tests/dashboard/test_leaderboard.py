import csv
import io
import re
import shutil

import pytest

import fake_results
from browser import listening
from iadbe.running.store import Store
from iadbe.web import run_cache


@pytest.fixture(scope="module")
def rivals(tmp_path_factory):
    """Two detectors that are hardly different, and one that is far worse."""
    store = Store(tmp_path_factory.mktemp("rivals") / "runs")
    for detector, shift, value in (("padim", 3.0, 0.98), ("dfm", 2.9, 0.975), ("spade", 0.1, 0.5)):
        store.save(
            fake_results.result(
                detector, values={"image_auroc": value}, scores=fake_results.scores(shift=shift, seed=1)
            )
        )
    return store


def test_the_start_page_ranks_the_largest_dataset(client):
    text = client.get("/").text
    assert text.index('"patchcore"') < text.index('"padim"')
    assert re.search(r'class="number best" data-value="0.91', text)
    assert '<option value="mvtec_ad" selected>' in text
    assert "killed at 4.1 GB" in text  # why a run failed is in a note
    assert "patchcore finds the defects best" in text
    assert "0.500" in client.get("/?dataset=visa").text
    assert client.get("/?reported=&find=&sort=&detail=").status_code == 200  # a form without script
    assert client.get("/?dataset=none").status_code == 404
    assert client.get("/?setting=moon").status_code == 404


def test_the_start_page_shows_the_protocol_with_most_ranked_runs(tmp_path, serve):
    store = Store(tmp_path / "runs")
    for detector in ("fastflow", "csflow", "msflow"):
        store.save(fake_results.result(detector, protocol="uniform+60s", steps={"done": 9, "planned": 4800}))
    store.save(fake_results.result("padim"))
    metrics = ("image_auroc", "image_ap", "pixel_auroc")
    values = {"image_auroc": 0.8, "image_ap": 0.7}
    store.save(fake_results.result("dfkde", "bottle", values, metrics=metrics, versions={}))
    text = serve(store).get("/").text
    assert "mvtec_ad, vanilla, protocol uniform</" in text.replace("\n", "")
    assert 'data-detail="image_auroc"' in text
    assert 'data-detail="pixel_auroc"' not in text  # no run has a value


def test_long_names_leave_room_for_numbers_on_a_phone(visit, tmp_path):
    store = Store(tmp_path / "runs")
    for weights in ("auto", "resnet18_of_a_long_name.pth"):
        params = {"backbone": "tf_efficientnet_lite0.in1k", "weights": weights}
        store.save(fake_results.result("padim", detector_params=params))
    with listening(store) as address:
        page = visit(address, width=390)
        for table in page.locator(".scroll table:has(.entry)").all():
            assert 100 < table.locator("tbody .entry").first.bounding_box()["width"] < 0.4 * 390
            name = table.locator("tbody th").first.bounding_box()
            number = table.locator("tbody td").first.bounding_box()
            assert (name["y"], name["height"]) == (number["y"], number["height"])


def test_it_shows_a_run_that_has_changed_since(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(run_cache, "MAX_AGE", 0.0)
    store = Store(tmp_path / "runs")
    for n, task in enumerate(("bottle", "cable", "pill")):
        for detector in ("padim", "dfm", "spade"):
            values = {"image_auroc": 0.6 + n / 10 + 0.05 * (detector == "dfm")}
            store.save(fake_results.result(detector, task, values))
    browser = serve(store)
    before = browser.get("/").text
    assert browser.get("/").text == before
    assert "dfm finds the defects best" in before
    store.save(fake_results.result("spade", "pill", {"image_auroc": 0.987}))
    after = browser.get("/").text
    assert "0.987" not in before
    assert "0.987" in after  # in the table by category
    assert "spade finds the defects best" in after
    shutil.rmtree(store.path(fake_results.spec("spade", "pill")))
    assert "dfm finds the defects best" in browser.get("/").text


def test_published_numbers_are_shown(client):
    assert "reported" in client.get("/").text
    assert '"image_auroc_reported"' not in client.get("/?reported=none").text


def test_download_links_match_the_view(client):
    text = client.get("/?metric=image_f1max&sort=image_f1max&find=pa&reported=none").text
    link = re.search(r'href="(/api/v1/leaderboard\?[^"]*format=csv[^"]*)"', text)[1].replace("&amp;", "&")
    rows = list(csv.DictReader(io.StringIO(client.get(link).text)))
    shown = re.findall(r'<th scope="row" data-value="([^"]+)">', text)
    assert [r["detector"] for r in rows] == shown == ["padim", "patchcore"]
    assert "image_f1max" in rows[0]
    assert "image_auroc" not in rows[0]


def test_high_numbers_have_warm_colours(client):
    text = client.get("/?detail=image_f1max").text
    heat = text[text.index('<table class="heat">') :]
    assert heat.index("h9") < heat.index("h0")
    assert "image F1max by category" in text


def columns(page, place=0):
    return page.locator(".board tbody tr:visible").evaluate_all(
        f"rows => rows.map(r => r.cells[{place}].dataset.value)"
    )


def test_sorting_and_filtering_update_the_address(visit, live):
    page = visit(live)
    assert columns(page) == ["patchcore", "padim", "stfpm"]
    head = page.locator(".board th", has_text="image AUROC").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert columns(page) == ["padim", "patchcore", "stfpm"]
    assert "sort=image_auroc" in page.url
    page.get_by_label("Find a detector").fill("p")
    page.get_by_text("Kinds", exact=True).click()
    page.get_by_label("student-teacher").check()
    assert columns(page) == ["stfpm"]
    assert "kind=student-teacher" in page.locator("#downloads a").first.get_attribute("href")
    page.reload()
    assert columns(page) == ["stfpm"]
    page.get_by_label("Find a detector").fill("nothing")
    assert page.get_by_text("No detector matches").is_visible()


def test_the_tradeoff_is_drawn_and_listed(visit, live):
    pytest.importorskip("plotly")
    page = visit(live)
    page.locator("#tradeoff[data-ready] .scatterlayer").wait_for()
    page.get_by_role("button", name="Size").click()
    page.locator("#tradeoff .xtitle", has_text="Model size").wait_for()
    page.get_by_text("The same as a table").click()
    row = page.locator("#tradeoff-table tr", has_text="padim")
    assert "28.6" in row.inner_text()
    page.get_by_role("link", name="image F1max").click()
    page.get_by_role("heading", name="image F1max by category").wait_for()
    page.locator("#tradeoff[data-ready] .ytitle", has_text="image F1max").wait_for()
    assert "detail=image_f1max" in page.url


def test_intervals_are_loaded_and_mark_ties(visit, rivals):
    with listening(rivals) as address:
        page = visit(f"{address}/?intervals=true")
        cells = page.locator(".board tbody tr td:nth-child(2)")
        cells.first.locator(".between").wait_for()
        assert cells.locator(".between").count() == 3
        assert [c.get_attribute("class").split()[-1] for c in cells.all()] == ["best", "tied", "number"]
        assert "not significantly different from the best" in cells.nth(1).inner_text()
        assert "the difference from dfm (" in page.locator("[data-answer]").inner_text()


def test_another_dataset_resets_the_view(visit, live):
    page = visit(f"{live}/?metric=pixel_auroc&sort=pixel_auroc")
    page.get_by_label("Data set").select_option("visa")
    page.wait_for_url("**dataset=visa**")
    assert columns(page) == ["padim"]
