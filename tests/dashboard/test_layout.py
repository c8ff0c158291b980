import re

import pytest

import fake_results
from iadbe.dashboard.layout import PAGES
from iadbe.jobs.queue import Queue
from iadbe.running.store import Store


def test_names_are_escaped(serve, tmp_path):
    store = Store(tmp_path / "runs")
    evil = "<script>alert(1)</script>"
    store.save(fake_results.result("padim", "bottle", dataset=evil))
    store.save(fake_results.result("dfm", "bottle", dataset=evil, error=evil))
    with Queue(store) as queue:
        queue.add({}, title=evil)
    (store.root / "x<img src=x>").mkdir()
    (store.root / "x<img src=x>/result.json").write_text("{")
    browser = serve(store)
    for path, _ in PAGES:
        text = browser.get(path).text
        assert "<script>alert" not in text
        assert "<img src=x>" not in text
    assert "alert(1)" in browser.get("/").text


@pytest.mark.parametrize("path", ["/login", *(path for path, _ in PAGES)])
def test_pages_are_accessible(client, path):
    text = client.get(path).text
    assert '<html lang="en"' in text
    assert text.count("<h1") == 1
    assert 'href="#main"' in text
    assert all('scope="' in th for th in re.findall(r"<th [^>]*>", text))
    assert "<th>" not in text
    assert len(re.findall(r"<img [^>]*alt=", text)) == text.count("<img ")


DRAW = """async () => {
  const { chart } = await import("/static/charts.js");
  const place = document.createElement("div");
  place.className = "chart";
  place.id = "made";
  document.querySelector("main").prepend(place);
  chart(place, () => ({ data: [{ x: [1, 2], y: [3, 4] }, { type: "heatmap", z: [[1, 2]] }] }), "A chart");
}"""


def test_charts_are_drawn_under_the_strict_policy_and_change_with_the_colours(visit, live):
    pytest.importorskip("plotly")
    page = visit(live)
    page.evaluate(DRAW)
    page.locator("#made[data-ready] .scatterlayer path").first.wait_for()
    boxes = [svg.bounding_box() for svg in page.locator("#made .main-svg").all()[:2]]
    assert page.locator("#made .svg-container").bounding_box()["height"] > 200
    assert boxes[0] == boxes[1]  # the layers lie on one another, which only style sheets can do
    assert page.locator("#made").get_attribute("aria-label") == "A chart"
    before = page.locator("#made .xtick text").first.evaluate("e => e.style.fill")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
    page.get_by_role("button", name="Switch between light and dark").click()
    page.wait_for_function("was => document.querySelector('#made .xtick text').style.fill !== was", arg=before)
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 15, 20)"


def test_pages_fit_a_phone(visit, live):
    page = visit(live, width=360, height=700, dark=True)
    page.wait_for_load_state("networkidle")  # ties come after the table
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".top nav a[aria-current]").is_visible()
