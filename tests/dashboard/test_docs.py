import re

from iadbe.dashboard.docs import assets


def test_the_description_works_without_a_network(client):
    assert assets() is not None
    text = client.get("/docs").text
    for link in re.findall(r'(?:src|href)="(/[^"#]+)"', text):
        told = client.get(link)
        assert told.status_code == 200, link
    assert "unpkg" not in text
    assert "jsdelivr" not in text
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self';" in policy


def test_and_without_the_assets(client, monkeypatch):
    monkeypatch.setattr("iadbe.dashboard.docs.importlib.util.find_spec", lambda name: None)
    text = client.get("/docs").text
    assert "openapi.json" in text
    assert "swagger" not in text
