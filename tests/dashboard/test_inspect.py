import csv
import dataclasses
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from browser import NAMES, listening
from iadbe.report import colormap


@pytest.fixture(scope="module")
def inspected(fitted):
    with listening(fitted.store, device="cpu") as address:
        yield f"{address}/inspect"


@pytest.fixture
def images(fitted, tmp_path):
    """Good and defective ones; a TIFF, which browsers do not show; and a file that is not an image."""
    found = sorted((fitted.mvtec / "nut/test").rglob("*.png"))
    named = {}
    for path in found:
        named[f"{path.parent.name}-{path.name}"] = path.read_bytes()
    for name, data in named.items():
        (tmp_path / name).write_bytes(data)
    Image.open(tmp_path / "spot-0.png").save(tmp_path / "spot-0.tiff")
    (tmp_path / "broken.png").write_text("no image")
    return tmp_path


def tile(page, name):
    return page.locator("#tiles li", has_text=name)


def test_without_a_model_the_page_says_how_to_get_one(client):
    assert "There is no model yet" in client.get("/inspect").text


def test_without_a_model_the_page_has_no_script_that_fails(visit, live):
    visit(f"{live}/inspect").get_by_role("heading", name="There is no model yet").wait_for()


def test_models_are_grouped_by_data(serve, fitted):
    text = serve(fitted.store).get("/inspect").text
    assert '<optgroup label="mvtec_ad · nut">' in text
    assert json.loads(re.search(r'id="models">(.*?)</script>', text)[1])[fitted.run]["detector"] == "padim"
    assert f"#{colormap.scale()[255][0]:02x}" in text
    assert "has no stored model" in serve(fitted.store).get("/inspect?model=x").text


def test_images_are_scored_and_downloaded(visit, inspected, images, tmp_path):
    page = visit(inspected)
    page.locator("#files").set_input_files([p for p in sorted(images.iterdir()) if p.is_file()])
    page.locator("#tally").get_by_text("8", exact=True).wait_for()
    page.wait_for_function("() => !document.querySelector('.pending')", timeout=60_000)
    for n in range(3):
        tile(page, f"spot-{n}.png").get_by_text("defective").first.wait_for()
        assert tile(page, f"good-{n}.png").locator(".badge").first.inner_text() == "good"
    tile(page, "broken.png").get_by_text("is not an image").wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#tiles img:not(.outline)')].every(i => i.naturalWidth)"
    )
    page.complaints.clear()  # the browser names the TIFF that it cannot show
    assert tile(page, "spot-0.tiff").locator("img").first.get_attribute("src").startswith("data:image/png")
    scaled = float(tile(page, "spot-0.png").locator(".scaled b").inner_text())
    assert scaled >= 0.5
    page.get_by_label("Opacity of the heat map").fill("20")
    assert tile(page, "spot-0.png").locator(".heat").evaluate("e => getComputedStyle(e).opacity") == "0.2"

    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as waited:
        page.get_by_role("button", name="CSV").click()
    waited.value.save_as(tmp_path / "out/findings.csv")
    rows = {r["name"]: r for r in csv.DictReader((tmp_path / "out/findings.csv").read_text().splitlines())}
    assert [rows[f"{k}-1.png"]["defective"] for k in ("good", "spot")] == ["false", "true"]
    assert rows["broken.png"]["error"]
    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as waited:
        page.get_by_role("button", name="zip").click()
    waited.value.save_as(tmp_path / "out/findings.zip")
    with zipfile.ZipFile(tmp_path / "out/findings.zip") as archive:
        assert archive.testzip() is None
        assert len([n for n in archive.namelist() if n.startswith("overlay/")]) == 7
        assert len(json.loads(archive.read("findings.json"))["findings"]) == 8
        with archive.open(
            "overlay/" + next(n for n in archive.namelist() if "spot-1" in n).partition("/")[2]
        ) as opened:
            assert np.asarray(Image.open(opened)).std() > 10

    page.get_by_label("Defective from a scaled score").fill("0.99")
    page.locator("#tally div", has_text="Defective").get_by_text("0", exact=True).wait_for()
    page.get_by_role("button", name="Back to the model's own").click()
    page.locator("#show").select_option("reject")
    assert page.locator("#tiles li").count() == 4
    page.locator("#order").select_option("worst")
    scores = [float(t.inner_text()) for t in page.locator("#tiles .scaled b").all()]
    assert scores == sorted(scores, reverse=True)
    page.get_by_role("button", name="Clear").click()
    assert page.locator("#results").is_hidden()


def test_images_can_be_dropped(visit, inspected, images):
    page = visit(inspected)
    data = list((images / "spot-1.png").read_bytes())
    page.evaluate(
        """data => {
          const moved = new DataTransfer();
          moved.items.add(new File([new Uint8Array(data)], "dropped.png", { type: "image/png" }));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: moved, bubbles: true }));
        }""",
        data,
    )
    tile(page, "dropped.png").get_by_text("defective").first.wait_for(timeout=60_000)


def test_it_waits_at_the_rate_limit(visit, fitted, images):
    from iadbe.web.policy import Policy

    with listening(fitted.store, device="cpu", policy=Policy(predict_rate=30)) as address:
        page = visit(f"{address}/inspect")
        page.locator("#files").set_input_files([images / "spot-1.png"] * 40)
        page.get_by_text("Retrying.").wait_for(timeout=60_000)
        page.wait_for_function("() => !document.querySelector('.pending')", timeout=60_000)
        assert page.locator("#tiles .badge.bad").count() == 40
        page.complaints.clear()  # the browser names the refused request


def test_the_camera(chromium, inspected):
    fake = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    path = next(filter(None, map(shutil.which, NAMES)))
    browser = chromium.browser_type.launch(executable_path=path, args=fake)
    try:
        page = browser.new_page()
        complaints = []
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(inspected)
        page.get_by_role("button", name="Use the camera").click()
        page.wait_for_function("() => document.getElementById('video').videoWidth")
        page.get_by_role("button", name="Take an image").click()
        tile(page, "camera-001.png").locator(".scaled").wait_for(timeout=60_000)
        page.get_by_label("continuously").check()
        tile(page, "camera-003.png").locator(".scaled").wait_for(timeout=60_000)
        page.get_by_role("button", name="Close the camera").click()
        assert page.locator("#still").is_visible()
        assert not complaints
    finally:
        browser.close()


def test_between_two_thresholds_an_image_is_to_be_looked_at(visit, fitted, images, tmp_path):
    from iadbe import api
    from iadbe.running import model_folder
    from iadbe.running.store import Store

    shutil.copytree(fitted.store.root, tmp_path / "runs")
    (folder,) = (tmp_path / "runs").glob("*/model")
    scores = sorted(found.score for found in api.predict(folder, images.glob("spot-*.png"), device="cpu"))
    own = model_folder.load(folder).calibration
    limits = {"threshold": (scores[0] + scores[1]) / 2, "look_threshold": scores[0] - 1}
    model_folder.save_calibration(folder, dataclasses.replace(own, **limits))
    with listening(Store(tmp_path / "runs"), device="cpu") as address:
        page = visit(f"{address}/inspect")
        page.locator("#about").get_by_text("Look at it from").wait_for()
        page.locator("#files").set_input_files(sorted(images.glob("spot-*.png")) + sorted(images.glob("good-*.png")))
        page.wait_for_function("() => document.querySelectorAll('#tiles .scaled').length === 6", timeout=60_000)
        page.locator("#tally div", has_text="Look at it").get_by_text("1", exact=True).wait_for()
        page.locator("#show").select_option("look")
        assert page.locator("#tiles .badge").all_inner_texts() == ["look at it"]
        assert page.locator("#tiles .mark").count() == 2
        page.get_by_label("Defective from a scaled score").fill("0.01")
        assert page.locator("#tiles li").count() == 0, "a threshold of one's own decides alone"
