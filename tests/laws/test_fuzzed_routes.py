"""Every parameter of every route, API and pages, with hostile values: never a 500, and a refusal says why."""

import inspect
import json
import re
import urllib.parse

import pytest

import fake_results

pytest.importorskip("fastapi", reason="the server needs the extra web")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from fastapi.routing import APIRoute

from http_client import opened
from iadbe.running.store import Store
from iadbe.web.app import API, API_MODULES
from uploads import image, zip_files

TEXTS = (
    "", "²", "٣", "-1", "0", "1e400", "nan", "inf", "9" * 5000, "x" * 5000, "a\0b", "\0", "\n", "\x1b[0m",
    "../../etc/passwd",
    "/etc/passwd", "..\\..\\x", "C:\\x", "%2e%2e%2f", "%00", "%ff", "'; DROP TABLE jobs; --",
    "<script>alert(1)</script>",
    "{{7*7}}", "${7*7}", "=1+1", "\ud7ff", "\ufffe", "\u202e", "é" * 300, "[]", "{}", "null", "true", "padim",
    "subprocess:Popen", "conftest:opened", "a:b", "~", "*", "?", "&a=b", "#", ";", "a=b&c=d",
    "image_auroc@" + "9" * 400,
    "image_" + "x" * 3000, "uniform@" + "9" * 5000, "few_shot(k=" + "9" * 5000 + ")", "few_shot(" * 500,
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 2**31, 2**52, 2**63, 10**400, 1e308, -0.0, [], {}, "", "x" * 5000, "a\0b", "²",
    [[[[[[[[]]]]]]]],
    {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}, ["x"] * 3000, {"x" * 4000: 1}, {"\0": "\0"}, {"name": "\0"},
    {"name": "padim", "params": []}, {"name": "padim", "sweep": {"dims": []}},
    {"name": "padim", "sweep": {"dims": None}},
    {"name": "toy", "count": 10**9}, {"name": "toy", "categories": [None, 7, {}]}, {"name": None}, {"name": ["padim"]},
)  # fmt: skip
FIELDS = ("detectors", "data", "settings", "seeds", "protocol", "metrics", "²", "a\0b", "x" * 5000)
OPTIONS = (
    "device", "engine", "threads", "keep_model", "keep_maps", "images", "time_limit", "memory_limit", "jobs",
    "retry_failed", "pictures", "x\0",
)  # fmt: skip
HEADERS = (
    "last-event-id", "if-none-match", "accept", "accept-encoding", "content-length", "cookie", "range", "origin",
    "host",
    "authorization", "content-type", "x-iadbe", "if-modified-since", "sec-fetch-site",
)  # fmt: skip
HEADER_VALUES = (b"", b"\xb2", b"9" * 400, b"bytes=9-1", b"\xff\xfe", b"iadbe_session=\xb2.\xb2.\xb2", b"x" * 3000)
BODIES = (
    b"", b"\xff", b"{", b"[" * 5000, b'{"grid": ' + b"9" * 5000 + b"}", b'{"grid": NaN}', b'"\\ud800"',
    b'{"grid": {"detectors": ["\\ud800"], "data": ["toy"]}}', b'{"grid": {}, "title": "\\ud800"}',
)  # fmt: skip
ENTRIES = (
    "x" * 300 + ".png", "d" * 300 + "/a.png", "d/" * 2000 + "a.png", "a\0b.png", "\ud7ff.png", "é" * 200 + ".png",
    " .png",
    "CON/a.png", "a" * 250 + "/" + "b" * 250 + "/c.png", "/" * 100 + "a.png", "good//a.png", "good/./a.png", ".png",
)  # fmt: skip
FORMS = {
    "/login": ("token", "to"),
    "/api/v1/predict": ("model", "threshold", "images", "pictures", "history"),
    "/api/v1/datasets": ("name",),
}
GRID = {"detectors": ["padim"], "data": ["toy"]}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A server with a few runs, one of them failed, and a job; event streams end at once."""
    store = Store(tmp_path_factory.mktemp("fuzzed") / "runs")
    fake_results.save(store, "patchcore", task="bottle", values={"image_auroc": 0.9, "pixel_auroc": 0.95})
    store.save(fake_results.result("padim", values={"image_auroc": 0.8}, scores=fake_results.scores("bottle", seed=1)))
    store.save(fake_results.result("stfpm", error="killed at 4.1 GB: memory limit 4.0 GB"))
    with opened(store) as client:
        client.server.shutting_down.set()
        client.job = client.server.queue.add({"detectors": ["padim"], "data": ["toy"]}).id
        client.run = next(iter(client.server.run_cache.now().ids))
        yield client


def routes():
    """Return (method, path, names of query parameters) of every route, mounted files among them."""
    from iadbe.dashboard.pages import PAGE_MODULES
    from iadbe.web import legacy

    found = []
    for module in (*API_MODULES, legacy, *PAGE_MODULES):
        prefix = API if module in API_MODULES else ""
        for route in module.router.routes:
            if isinstance(route, APIRoute):
                query = tuple(p.alias for p in route.dependant.query_params)
                query += tuple(p.alias for d in route.dependant.dependencies for p in d.query_params)
                found += [(method, prefix + route.path, query) for method in sorted(route.methods)]
    return found


ROUTES = routes()


def check(answer, what):
    assert answer.status_code != 500, f"{what}: {answer.text}"
    if answer.status_code < 400:
        return
    detail = answer.json()["detail"] if "json" in answer.headers["content-type"] else page_text(answer.text)
    assert 10 < len(detail.strip()) < 2000, f"{what}: {detail[:300]}"
    assert "Traceback" not in detail
    assert "this is a bug" not in detail


def page_text(page):
    found = re.search(r'role="alert"[^>]*>(.*?)</p>', page, re.DOTALL) or re.search(
        r"<main.*?>(.*)</main>", page, re.DOTALL
    )
    return re.sub(r"<[^>]+>", "", found[1])


def known_path(client, path):
    """Return the path with names that exist."""
    names = {"run": client.run, "name": client.run if path.startswith("/runs") else "toy", "job": client.job, "n": "0"}
    names |= {"kind": "input" if "/images/" in path else "image"}
    if "detectors" in path:
        names["name"] = "padim"
    if "settings" in path:
        names["name"] = "few_shot"
    return re.sub(r"{(\w+)}", lambda m: names[m[1]], path)


def test_every_module_has_routes():
    assert len(ROUTES) > 55
    assert {method for method, _, _ in ROUTES} >= {"GET", "POST", "DELETE"}


@pytest.mark.parametrize(("method", "path", "query"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
def test_query_parameters(client, method, path, query):
    if method != "GET":
        pytest.skip("only GET has query parameters")
    known = known_path(client, path)
    check(client.get(known), known)
    for name in query:
        for value in TEXTS:
            address = f"{known}?{urllib.parse.urlencode({name: value}, errors='surrogatepass')}"
            check(client.get(address), f"{known} {name}={value[:40]!r}")
        check(client.get(known, params=[(name, "x")] * 300), f"{known} {name} 300 times")
        check(client.get(f"{known}?{name}=%ff%fe&{name}=%"), f"{known} {name} not UTF-8")


@pytest.mark.parametrize(("method", "path", "query"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
def test_path_parameters(client, method, path, query):
    names = re.findall(r"{(\w+)}", path)
    if not names:
        pytest.skip("no path parameter")
    for at in range(len(names)):
        for value in TEXTS:
            quoted = urllib.parse.quote(value, safe="", errors="surrogatepass")
            made = path.replace(f"{{{names[at]}}}", quoted)
            check(client.request(method, known_path(client, made)), f"{method} {path} {names[at]}={value[:40]!r}")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "query"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
def test_headers(client, method, path, query):
    known = known_path(client, path) if method == "GET" else path.replace("{job}", "0" * 12)
    for name in HEADERS:
        for value in HEADER_VALUES:
            answer = client.request(method, known, headers=[(name.encode(), value)])
            check(answer, f"{method} {known} {name}: {value[:20]!r}")


@pytest.mark.parametrize("path", ["/api/v1/plan", "/api/v1/jobs"])
class TestJobBodies:
    def send(self, client, path, body):
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        return client.post(path, content=text, headers={"content-type": "application/json"})

    @pytest.mark.parametrize("field", FIELDS)
    def test_every_field_of_a_grid(self, client, path, field):
        for value in VALUES:
            for given in (value, [value], {"name": "padim", "params": {"dims": value}}):
                body = {"grid": {**GRID, field: given}}
                check(self.send(client, path, body), f"{field[:20]}={str(given)[:80]}")

    @pytest.mark.parametrize("option", OPTIONS)
    def test_every_option(self, client, path, option):
        for value in (*VALUES, *TEXTS):
            body = {"grid": {**GRID, "seeds": []}, "options": {option: value}}
            check(self.send(client, path, body), f"{option}={str(value)[:80]}")

    def test_titles_and_whole_bodies(self, client, path):
        for value in (*TEXTS, *VALUES):
            check(self.send(client, path, {"grid": {}, "title": value}), f"title={str(value)[:80]}")
            check(self.send(client, path, value), str(value)[:80])
        for body in BODIES:
            check(self.send(client, path, body), body[:40])


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in FORMS.items() for name in names])
def test_form_fields(client, path, name):
    files = {"/api/v1/predict": "files", "/api/v1/datasets": "file"}.get(path)
    given = {"model": client.run, "name": "fuzzed", "token": "x"}
    for value in TEXTS:
        what = f"{path} {name}={value[:40]!r}"
        if files:
            sent = {**given, name: value.encode("utf-8", "surrogatepass")}
            check(client.post(path, data=sent, files=[(files, ("a.png", image()))]), what)
        else:
            text = urllib.parse.urlencode({**given, name: value}, errors="surrogatepass")
            kind = {"content-type": "application/x-www-form-urlencoded"}
            check(client.post(path, content=text, headers=kind, follow_redirects=False), what)


@pytest.mark.parametrize("path", ["/api/v1/predict", "/api/v1/datasets"])
def test_uploaded_file_names(client, path):
    field = "files" if "predict" in path else "file"
    for name in TEXTS:
        file = (name.encode("utf-8", "replace").decode() or "x", image())
        check(
            client.post(path, data={"model": client.run, "name": "fuzzed"}, files=[(field, file)]),
            f"{path} {name[:40]!r}",
        )


@pytest.mark.parametrize("name", ENTRIES, ids=lambda name: f"{name[:10]!r} {len(name)}")
def test_zip_entries(client, tmp_path, name):
    archive = zip_files(tmp_path / "a.zip", {name: image(), "good/1.png": image(), "bad/1.png": image()})
    answer = client.post("/api/v1/datasets", data={"name": "fuzzed"}, files={"file": ("a.zip", archive.read_bytes())})
    check(answer, name[:40])
    client.delete("/api/v1/datasets/fuzzed")


def test_every_field_of_an_export(client):
    path = f"/api/v1/models/{client.run}/exports"
    model = client.server.run_cache.path(client.run) / "model"
    model.mkdir()
    for file in ("detector.json", "weights.safetensors"):
        (model / file).write_text("{}")
    for field in ("to", "precision", "allow", "options", "run", "x" * 5000):
        for value in (*VALUES, *TEXTS, *({option: value} for option in OPTIONS for value in VALUES)):
            text = json.dumps({field: value})
            check(client.post(path, content=text, headers={"content-type": "application/json"}), text[:80])
    for body in BODIES:
        check(client.post(path, content=body, headers={"content-type": "application/json"}), body[:40])


def test_every_handler_is_fuzzed(client):
    """Each parameter that a handler takes from a request is one of a query, a path, a body, a form or a header."""
    from iadbe.dashboard.pages import PAGE_MODULES
    from iadbe.web import legacy

    modules = (*API_MODULES, legacy, *PAGE_MODULES)
    handlers = [route.endpoint for m in modules for route in m.router.routes if isinstance(route, APIRoute)]
    fuzzed = {name for _, _, query in ROUTES for name in query}
    fuzzed |= {name for _, path, _ in ROUTES for name in re.findall(r"{(\w+)}", path)}
    fuzzed |= {name for names in FORMS.values() for name in names}
    fuzzed |= {"files", "file", "grid", "options", "title", "last_event_id", "accept_encoding", "change", "order"}
    own = {"server", "client", "request", "response", "cancelled", "query"}
    for handler in handlers:
        names = {p.removesuffix("_") for p in inspect.signature(handler).parameters} - own
        assert names <= fuzzed | {"form", "number"}, handler
