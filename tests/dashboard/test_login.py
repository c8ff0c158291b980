import pytest

from iadbe.dashboard.login import local_path


@pytest.mark.parametrize(
    ("to", "found"), [("/x?a=b", "/x?a=b"), ("//x", "/"), ("x", "/"), ("/\\x", "/"), ("/a\nb", "/")]
)
def test_redirects_stay_on_this_server(to, found):
    assert local_path(to) == found


def test_without_a_token_no_login_is_needed(client):
    assert "needs no token" in client.get("/login").text
    assert client.post("/login", data={"token": ""}).status_code in (403, 422)
