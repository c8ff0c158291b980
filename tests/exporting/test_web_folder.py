"""A page in which a browser scores images."""

import functools
import http.server
import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import chromium, visit  # noqa: F401
from exported_models import golden, random_image
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.exporting import web_folder
from iadbe.exporting.result import write
from iadbe.runtime import regions
from iadbe.runtime.inspector import Inspector
from iadbe.runtime.regions import RegionRule, verdict_by_regions
from iadbe.runtime.zones import Zone


def package(folder):
    """Make a folder that looks like the runtime's package."""
    (folder / "dist").mkdir(parents=True)
    for name in web_folder.RUNTIME:
        (folder / "dist" / name).write_text("")
    (folder / web_folder.DESCRIPTION).write_text("{}")
    return folder


@pytest.fixture
def exported(tmp_path):
    """A file that no browser looks at."""
    file = tmp_path / "golden.onnx"
    file.write_bytes(b"model")
    return file


@pytest.mark.parametrize("given", ["", "dist", "node_modules/onnxruntime-web"])
def test_the_runtime_is_found_in_its_package_and_around_it(tmp_path, exported, given):
    inside = tmp_path / "package" / (given if given.startswith("node") else "")
    package(inside)
    named = tmp_path / "package" / (given if given == "dist" else "")
    page = web_folder.write(exported, {"detector": "golden"}, tmp_path / "page", named)
    assert {path.name for path in page.iterdir()} == {
        *web_folder.PAGE,
        "report.css",
        "model.onnx",
        "model.json",
        "runtime",
    }
    assert {path.name for path in (page / "runtime").iterdir()} == {*web_folder.RUNTIME, web_folder.DESCRIPTION}
    assert json.loads((page / "model.json").read_text())["card"] == {"detector": "golden"}
    assert not exported.exists()


def test_a_page_replaces_a_page_and_nothing_else(tmp_path, exported):
    runtime = package(tmp_path / "package")
    again = shutil.copy(exported, tmp_path / "again.onnx")
    page = web_folder.write(exported, {}, tmp_path / "page", runtime)
    (page / "model.onnx.sig").write_text("")
    web_folder.write(again, {}, page, runtime)
    (page / "notes.txt").write_text("")
    with pytest.raises(BadConfig, match=r"has other files \(notes.txt\)"):
        web_folder.check(page)
    with pytest.raises(BadConfig, match="is a file"):
        web_folder.check(page / "notes.txt")


def test_without_npm_the_way_is_named(tmp_path, exported, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="--runtime"):
        web_folder.write(exported, {}, tmp_path / "page")
    with pytest.raises(BadConfig, match="does not hold the package"):
        web_folder.write(exported, {}, tmp_path / "page", tmp_path / "cache")
    assert not (tmp_path / "page").exists()
    assert exported.exists()


EDGE, REST = np.indices((45, 25)).sum(0) < 30, np.ones((45, 25), bool)
RULE = RegionRule(2, 1, (Zone.of_mask("edge", EDGE, 0.31), Zone.of_mask("rest", REST)))


@pytest.fixture
def fitted(request):
    """The detector of the page; a parameter is its calibration."""
    return replace(golden(), calibration=getattr(request, "param", golden().calibration))


@pytest.fixture
def page(tmp_path, fitted):
    """The folder of a page with a real model and the real runtime."""
    pytest.importorskip("onnxruntime")
    exported = write(fitted, tmp_path / "golden.onnx").file
    card = Inspector(exported).card
    try:
        return web_folder.write(exported, card, tmp_path / "page")
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def address(page):
    """The address of a plain web server over the folder."""
    with served(page) as found:
        yield found


@contextmanager
def served(folder):
    """Serve a folder as any web server does, and yield its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_the_browser_finds_what_the_file_finds(tmp_path, page, address, visit):  # noqa: F811
    inspector = Inspector(page / "model.onnx")
    images = {"a.png": random_image(90, 50), "b.png": random_image(33, 71)}
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / name)
    clear = np.dstack([images["a.png"], np.full((90, 50), 128, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")  # composited on black, within a level
    (tmp_path / "broken.png").write_text("no image")
    shown = visit(address)
    files = [tmp_path / name for name in (*images, "clear.png", "broken.png")]
    shown.locator("#files:not([disabled])").wait_for(state="attached")
    shown.set_input_files("#files", files)
    shown.locator(".verdict.failed").wait_for()
    shown.locator("[data-verdict]").nth(2).wait_for()
    for name, image in images.items():
        entry = shown.locator(f'[data-name="{name}"]')
        expected = inspector(image)
        assert float(entry.get_attribute("data-score")) == pytest.approx(expected.score, rel=1e-4)
        assert (
            entry.locator(".verdict").inner_text()
            == {"good": "good", "reject": "reject", "": "scored"}[expected.verdict]
        )
    assert "broken.png" in shown.locator(".result", has=shown.locator(".failed")).inner_text()
    drawn = shown.evaluate("document.querySelector('canvas').width")
    assert drawn > 0
    assert not shown.complaints


def by_python(case):
    """Return verdict and regions of a case, or the error."""
    map_ = np.array(case["map"], np.float32).reshape(case["height"], case["width"])
    calibration = case["calibration"]
    try:
        verdict, found = verdict_by_regions(
            map_, regions.read(calibration["rule"]), calibration["pixel_threshold"], calibration["look_pixel_threshold"]
        )
    except BadData:
        return "refused"
    return {"verdict": ["good", "look", "reject"].index(verdict), "regions": [one.card() for one in found]}


def cases(rng):
    """Yield maps with few distinct values, so that there are ties, and rules with zones of other sizes."""
    for n in range(60):
        height, width = (int(side) for side in rng.integers(1, 24, 2))
        scale = (1, 2, 0.5)[n % 3]
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        if n % 10 == 9:
            rows = 3 * rows + 5  # other proportions
        masks = [rng.random((rows, columns)) < 0.4 for _ in range(n % 3)]
        zones = tuple(Zone.of_mask(f"z{k}", mask, (None, 0.1, 0.7)[k]) for k, mask in enumerate(masks))
        rule = RegionRule(int(rng.integers(1, 5)), int(rng.integers(0, 3)), zones)
        values = (rng.integers(0, 11, (height, width)) / 10).astype(np.float32)
        look = None if n % 4 == 0 else 0.6
        calibration = {"rule": asdict(rule), "pixel_threshold": 0.8, "look_pixel_threshold": look}
        yield {"map": values.ravel().tolist(), "width": width, "height": height, "calibration": calibration}


CALL = """async (cases) => {
  const { decided } = await import("./regions.js");
  return cases.map(({ map, width, height, calibration }) => {
    try { return decided(Float32Array.from(map), width, height, calibration); } catch { return "refused"; }
  });
}"""


def test_the_rules_for_regions_are_those_of_python(visit, tmp_path):  # noqa: F811
    (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href=data:,>")
    shutil.copy(Path(web_folder.__file__).parent / "web_page" / "regions.js", tmp_path)
    some = list(cases(np.random.default_rng(0)))
    with served(tmp_path) as address:
        shown = visit(address)
        found = shown.evaluate(CALL, some)
    expected = [by_python(case) for case in some]
    assert found == expected
    verdicts = [one if one == "refused" else one["verdict"] for one in expected]
    assert {0, 1, 2, "refused"} == set(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("fitted", [replace(golden().calibration, rule=RULE, pixel_threshold=0.35)], indirect=True)
def test_a_model_with_rules_for_regions_gives_their_verdicts(tmp_path, page, address, visit):  # noqa: F811
    inspector = Inspector(page / "model.onnx")
    images = {
        "a.png": random_image(90, 50),
        "b.png": np.full((90, 50, 3), 200, np.uint8),
        "wide.png": random_image(50, 90),
    }
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / name)
    shown = visit(address)
    shown.locator("#files:not([disabled])").wait_for(state="attached")
    shown.set_input_files("#files", [tmp_path / name for name in images])
    shown.locator(".verdict.failed").wait_for()
    shown.locator("[data-verdict]").nth(1).wait_for()
    for name in ("a.png", "b.png"):
        entry, expected = shown.locator(f'[data-name="{name}"]'), inspector(images[name])
        assert entry.get_attribute("data-verdict") == str(["good", "look", "reject"].index(expected.verdict))
        own = json.loads(entry.get_attribute("data-regions"))
        assert len(own) == len(expected.regions)
        assert [one["zone"] for one in own[:3]] == [one.zone or None for one in expected.regions[:3]]
    assert "other proportions" in shown.locator(".result", has=shown.locator(".failed")).inner_text()
    with pytest.raises(BadData):
        inspector(images["wide.png"])
