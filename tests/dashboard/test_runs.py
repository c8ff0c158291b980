import re

import fake_results
from iadbe.dashboard import runs
from iadbe.running.store import Store


def shown(text):
    return re.findall(r'<td><a href="/runs/\w+"><b>([^<]+)</b></a></td>\s*<td>([^<]*)</td><td>([^<]*)</td>', text)


def test_the_address_sorts_and_filters_the_list(client):
    assert len(shown(client.get("/runs").text)) == 8
    text = client.get("/runs?sort=image_auroc&dataset=mvtec_ad&state=well").text
    assert shown(text)[0] == ("padim", "mvtec_ad", "metal_nut")
    assert shown(text)[-1] == ("patchcore", "mvtec_ad", "bottle")
    assert 'aria-sort="ascending"' in text
    assert "killed at 4.1 GB" in client.get("/runs?state=failed").text
    assert (
        len(shown(client.get("/runs?dataset=&detector=&seed=&find=METAL").text)) == 2
    )  # as a form without script sends it
    assert "No run matches" in client.get("/runs?find=nothing").text
    assert client.get("/runs?sort=moon").status_code == 404


def test_paging_keeps_the_view(client, monkeypatch):
    monkeypatch.setattr(runs, "PAGE_SIZE", 3)
    first = client.get("/runs?sort=-image_auroc&state=well").text
    assert "1–3 of 7" in first
    link = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    second = client.get(link).text
    assert "4–6 of 7" in second
    assert not set(shown(first)) & set(shown(second))
    assert 'rel="prev"' in second


def test_an_empty_store_says_what_to_do(serve, tmp_path):
    assert "iadbe benchmark" in serve(Store(tmp_path / "none")).get("/runs").text


def test_a_failed_run_shows_why(serve, tmp_path):
    store = Store(tmp_path / "runs")
    store.save(fake_results.result("padim", error="no memory <b>left</b>"))
    text = serve(store).get("/runs").text
    assert "no memory &lt;b&gt;left" in text


def test_ticked_runs_are_remembered_until_they_are_compared(visit, live):
    page = visit(f"{live}/runs")
    tray = page.locator("#tray")
    assert tray.is_hidden()
    page.get_by_label(re.compile("^Compare padim.*bottle")).check()
    assert tray.get_by_role("button").is_disabled()
    page.get_by_role("link", name="image AUROC").click()
    page.wait_for_url("**sort=-image_auroc**")
    page.get_by_label(re.compile("^Compare patchcore.*bottle")).check()
    assert "2 runs are ticked" in tray.inner_text()
    page.get_by_label("State").select_option("failed")
    page.wait_for_url("**state=failed**")
    assert page.locator("table.runs tbody tr").count() == 1
    assert "seed=" not in page.url  # what is empty is left out
