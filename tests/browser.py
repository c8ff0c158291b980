"""A real server in a thread, and a real browser (Playwright)."""

import shutil
import threading
import time
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def listening(store, port=0, **more):
    """Serve a store on a free port, or on this one, and yield its address."""
    import uvicorn

    from iadbe.dashboard.pages import install
    from iadbe.web.app import build

    app = build(store, pages=install, **more)
    config = uvicorn.Config(app, port=port, log_level="warning", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    opened = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():  # the socket is bound, and refuses connections until then
        time.sleep(0.01)
    try:
        yield f"http://localhost:{opened.getsockname()[1]}"
    finally:
        config.app.app.state.server.shutting_down.set()
        server.should_exit = True
        thread.join(20)
        opened.close()


@pytest.fixture(scope="module")
def chromium():
    """A browser, for one file of tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"pages are tested in a browser, and none of {', '.join(NAMES)} is here")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def live(filled):
    """The address of a server over the filled store."""
    with listening(filled) as address:
        yield address


@pytest.fixture
def visit(chromium):
    """Return a function that opens an address. The test fails if a page logs an error.

    It returns a Playwright page. ``page.complaints`` holds its console errors, content security violations and uncaught
    exceptions. A test that provokes one on purpose clears that list.
    """
    contexts, pages = [], []

    def opened(address, *, width=1280, height=900, dark=False):
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.complaints = []
        page.on(
            "console", lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        contexts.append(context)
        pages.append(page)
        page.goto(address)
        return page

    yield opened
    complaints = [text for page in pages for text in page.complaints]
    for context in contexts:
        context.close()
    if complaints:
        pytest.fail("the browser complains:\n" + "\n".join(complaints))
