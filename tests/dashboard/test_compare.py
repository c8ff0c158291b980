import json
import re

import pytest

import fake_results
from browser import listening
from iadbe.running.store import Store
from iadbe.seeds import run_id

LOST = re.compile("stain/[13],")


@pytest.fixture(scope="module")
def rivals(tmp_path_factory):
    """Two runs with images: the second misses two stains."""
    store = Store(tmp_path_factory.mktemp("rivals") / "runs")
    ids = []
    for detector in ("padim", "dfm"):
        run = fake_results.save(store, detector)
        folder = store.path(run.spec)
        if detector == "dfm":
            lines = (folder / "scores.csv").read_text().splitlines()
            lost = [re.sub(r"[^,]+$", "-9.0", line) if LOST.search(line) else line for line in lines]
            (folder / "scores.csv").write_text("\n".join(lost) + "\n")
            index = folder / "images" / "images.json"
            kept = json.loads(index.read_text())
            index.write_text(json.dumps([{**e, "score": -9.0} if LOST.search(e["sample"] + ",") else e for e in kept]))
        ids.append(run_id(run.spec))
    return store, ids


def test_runs_are_added_one_after_the_other(client, ids):
    text = client.get("/compare").text
    assert "Choose a run to begin with" in text
    one = ids.of("padim", "bottle")
    text = client.get(f"/compare?run={one}").text
    links = re.findall(r'href="(/compare\?run=[^"]+)">\+ <b>([^<]+)', text)
    assert [name for _, name in links] == ["patchcore"]  # of the same data; the failed one is not offered
    both = client.get(links[0][0].replace("&amp;", "&")).text
    assert "0.920" in both
    assert "Significance" in both or "share no test image" in both


def test_runs_that_share_nothing_say_so(client, ids):
    pair = f"run={ids.of('padim', 'bottle')}&run={ids.of('padim', 'cable')}"
    text = client.get(f"/compare?{pair}").text
    assert "share no test image" in text
    assert "padim (task bottle)" in text


def test_the_best_is_bold_and_differing_parameters_are_listed(serve, tmp_path):
    store, named = Store(tmp_path / "runs"), []
    for dims, value in ((50, 0.8), (100, 0.9)):
        run = fake_results.result("padim", values={"image_auroc": value}, detector_params={"dims": dims, "sigma": 4.0})
        store.save(run)
        named.append(f"run={run_id(run.spec)}")
    text = serve(store).get(f"/compare?{'&'.join(named)}").text
    assert '<td class="number best">0.900</td>' in text
    assert "<code>dims</code>" in text
    assert "<code>sigma</code>" not in text
    assert client_names(text) == 2


def client_names(text):
    return len(set(re.findall(r'<th scope="col" class="number">(padim \w{4})</th>', text)))


def test_unknown_runs_are_reported(client):
    assert client.get("/compare?run=nothing").status_code == 404
    assert client.get("/compare?" + "&".join(["run=x"] * 7)).status_code == 422


def test_images_can_be_filtered_by_disagreement(visit, rivals):
    store, (padim, dfm) = rivals
    with listening(store) as address:
        page = visit(f"{address}/compare?run={padim}&run={dfm}")
        rows = page.locator("table.comparison tbody tr")
        rows.first.wait_for()
        assert rows.count() == 2
        assert "2 images" in page.locator("#shown").inner_text()
        first = rows.first
        assert first.locator("td").nth(0).inner_text().startswith("caught")
        assert first.locator("td").nth(1).inner_text().startswith("missed")
        first.locator(".outline:not([hidden])").first.wait_for()
        page.get_by_label("Only one is right").select_option(label="dfm")
        page.get_by_text("No such image").wait_for()
        page.get_by_label("Only one is right").select_option(label="padim")
        assert rows.count() == 2
        page.get_by_role("button", name="All right").click()
        page.get_by_label("Only one is right").select_option("")
        assert rows.count() == 18
        page.get_by_label("Only with images").check()
        assert rows.locator("th .layers").count() == rows.count()


def test_neither_unfinished_runs_nor_times_that_overlap_are_the_best(serve, tmp_path):
    store, named = Store(tmp_path / "runs"), []
    for detector, value, more in (
        ("padim", 0.8, {"latency_ms": 10.0, "latency_range_ms": (9.0, 30.0)}),
        ("dfm", 0.7, {"latency_ms": 20.0, "latency_range_ms": (18.0, 22.0)}),
        ("stfpm", 0.9, {"latency_ms": 5.0, "steps": {"done": 9, "planned": 4800}}),
    ):
        run = fake_results.result(detector, values={"image_auroc": value}, **more)
        store.save(run)
        named.append(f"run={run_id(run.spec)}")
    text = serve(store).get(f"/compare?{'&'.join(named)}").text
    assert '<td class="number best">0.800</td>' in text
    assert not re.search(r'best">(0\.900|(5|10|20)(\.0)?)<', text)
    assert "9 of 4 800, unfinished" in text
