import re

from iadbe.dashboard.docs import assets


def test_the_documentation_works_offline(client):
    assert assets() is not None
    text = client.get("/docs").text
    for link in re.findall(r'(?:src|href)="(/[^"#]+)"', text):
        response = client.get(link)
        assert response.status_code == 200, link
    assert "unpkg" not in text
    assert "jsdelivr" not in text
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self';" in policy


def test_the_documentation_works_without_swagger(client, monkeypatch):
    monkeypatch.setattr("iadbe.dashboard.docs.importlib.util.find_spec", lambda name: None)
    text = client.get("/docs").text
    assert "openapi.json" in text
    assert "swagger" not in text
