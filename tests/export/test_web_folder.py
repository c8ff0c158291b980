"""A page in which a browser scores images."""

import functools
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from browser import chromium, visit  # noqa: F401
from exported_models import golden, random_image
from iadbe.errors import BadConfig, Missing
from iadbe.export import web_folder
from iadbe.export.result import write
from iadbe.runtime.inspector import Inspector


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


@pytest.fixture
def page(tmp_path):
    """The folder of a page with a real model and the real runtime."""
    pytest.importorskip("onnxruntime")
    exported = write(golden(), tmp_path / "golden.onnx").file
    card = Inspector(exported).card
    try:
        return web_folder.write(exported, card, tmp_path / "page")
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def address(page):
    """The address of a plain web server over the folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(page))) as server:
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
