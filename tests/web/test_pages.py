import re

import pytest

import made_up
from iadbe.jobs.queue import Queue
from iadbe.store import Store
from iadbe.web.pages import docs_assets, inside


def test_the_start_ranks_the_largest_dataset(client):
    text = client.get("/").text
    assert text.index("patchcore") < text.index(">padim")
    assert "<strong>0.910</strong>" in text
    assert re.search(r'href="/\?dataset=mvtec_ad" aria-current="true"', text)
    assert "killed at 4.1 GB" in text  # why a run failed is in a note
    assert "0.500" in client.get("/?dataset=visa").text
    assert client.get("/?dataset=none").status_code == 404


def test_what_names_hold_is_never_markup(serve, tmp_path):
    store = Store(tmp_path / "runs")
    evil = "<script>alert(1)</script>"
    store.save(made_up.result("padim", "bottle", dataset=evil))
    store.save(made_up.result("dfm", "bottle", dataset=evil, error=evil))
    with Queue(store) as queue:
        queue.add({}, title=evil)
    (store.root / "x<img src=x>").mkdir()
    (store.root / "x<img src=x>/result.json").write_text("{")
    text = serve(store).get("/").text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x>" not in text


def test_it_can_be_read_aloud(client):
    for path in ("/", "/login", "/docs"):
        text = client.get(path).text
        assert '<html lang="en">' in text
        assert text.count("<h1") == 1
        assert 'href="#main"' in text
        assert all('scope="' in th for th in re.findall(r"<th [^>]*>", text))
        assert "<th>" not in text
        assert len(re.findall(r"<img [^>]*alt=", text)) == text.count("<img ")


def test_the_description_works_without_a_network(client):
    assert docs_assets() is not None
    text = client.get("/docs").text
    for link in re.findall(r'(?:src|href)="(/[^"#]+)"', text):
        told = client.get(link)
        assert told.status_code == 200, link
    assert "unpkg" not in text
    assert "jsdelivr" not in text
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self';" in policy


def test_and_without_the_assets(client, monkeypatch):
    monkeypatch.setattr("iadbe.web.pages.importlib.util.find_spec", lambda name: None)
    text = client.get("/docs").text
    assert "openapi.json" in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("to", "found"), [("/x?a=b", "/x?a=b"), ("//x", "/"), ("x", "/"), ("/\\x", "/"), ("/a\nb", "/")]
)
def test_inside(to, found):
    assert inside(to) == found


def test_a_server_without_a_token_asks_for_none(client):
    assert "asks for no token" in client.get("/login").text
    assert client.post("/login", data={"token": ""}).status_code in (403, 422)
