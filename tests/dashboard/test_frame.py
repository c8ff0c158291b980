import re

import pytest

import made_up
from iadbe.dashboard.frame import PAGES
from iadbe.jobs.queue import Queue
from iadbe.store import Store


def test_what_names_hold_is_never_markup(serve, tmp_path):
    store = Store(tmp_path / "runs")
    evil = "<script>alert(1)</script>"
    store.save(made_up.result("padim", "bottle", dataset=evil))
    store.save(made_up.result("dfm", "bottle", dataset=evil, error=evil))
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
def test_it_can_be_read_aloud(client, path):
    text = client.get(path).text
    assert '<html lang="en">' in text
    assert text.count("<h1") == 1
    assert 'href="#main"' in text
    assert all('scope="' in th for th in re.findall(r"<th [^>]*>", text))
    assert "<th>" not in text
    assert len(re.findall(r"<img [^>]*alt=", text)) == text.count("<img ")
