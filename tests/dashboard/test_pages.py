import pytest

from iadbe.dashboard.layout import PAGES
from iadbe.web.app import build


@pytest.mark.parametrize("path", [path for path, _ in PAGES])
def test_every_entry_of_the_navigation_is_a_page(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert f'href="{path}" aria-current="page"' in response.text


def test_a_server_without_pages(filled):
    from starlette.testclient import TestClient

    with TestClient(build(filled), base_url="http://localhost") as client:
        assert client.get("/").status_code == 404
        assert client.get("/api/v1/leaderboard").status_code == 200
