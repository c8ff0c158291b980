import pytest

from iadbe.dashboard.login import inside


@pytest.mark.parametrize(
    ("to", "found"), [("/x?a=b", "/x?a=b"), ("//x", "/"), ("x", "/"), ("/\\x", "/"), ("/a\nb", "/")]
)
def test_it_leads_nowhere_else(to, found):
    assert inside(to) == found


def test_a_server_without_a_token_asks_for_none(client):
    assert "asks for no token" in client.get("/login").text
    assert client.post("/login", data={"token": ""}).status_code in (403, 422)
