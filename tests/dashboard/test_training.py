import json
import re

import pytest

from iadbe.jobs.queue import Queue
from iadbe.running.store import Store


def given(text):
    return json.loads(re.search(r'id="charts">(.*?)</script>', text)[1])


def test_the_numbers_are_in_tables(client):
    text = client.get("/training").text
    row = re.search(r"/detectors/padim\".*?</tr>", text, re.DOTALL)[0]
    assert re.findall(r">([\d.]+)</td>", row) == ["6.0", "2.0"]  # three categories of MVTec AD, one of VisA
    charts = given(text)
    assert charts["times"]["data"][0] == {"name": "mvtec_ad", "values": [6.0, 6.0]}
    assert charts["sizes"] == {"padim": 30.0, "patchcore": 60.0}
    assert {one["datasetName"]: one["sampleNumber"] for one in charts["shares"]} == {"mvtec_ad": 5354, "visa": 10821}
    assert [one["label"] for one in charts["best"]] == ["patchcore", "padim"]


def test_one_dataset_can_be_chosen(client):
    text = client.get("/training", params={"dataset": "visa"}).text
    assert given(text)["times"] == {"detectors": ["padim"], "data": [{"name": "visa", "values": [2.0]}]}
    assert "has finished on &lt;x&gt;" in client.get("/training", params={"dataset": "<x>"}).text


def test_unfinished_jobs_come_first(serve, tmp_path):
    store = Store(tmp_path / "runs")
    assert "There are no runs yet" in serve(store).get("/training").text
    with Queue(store) as queue:
        queue.add({}, title="Night shift")
    assert "Night shift" in serve(store).get("/training").text


def test_the_charts_are_drawn(visit, live):
    pytest.importorskip("plotly")
    page = visit(f"{live}/training")
    for name in ("times", "sizes", "shares", "kinds", "best"):
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.locator(f"#{name}[data-ready] .main-svg").first.wait_for()
        assert page.locator(f"#{name} .svg-container").bounding_box()["height"] > 90
    page.locator("#times").get_by_text("patchcore").wait_for()
    page.locator("select[name=dataset]").select_option("visa")
    page.wait_for_url("**/training?dataset=visa")
