import pytest

PAGE = {"accept": "text/html,application/xhtml+xml"}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/runs/nothing", 404, "There is no run"),
        ("/?dataset=%3Cscript%3Ealert(1)%3C/script%3E", 404, "no run has the dataset"),
        ("/nowhere", 404, "There is nothing at /nowhere"),
        ("/runs?page=x", 422, "not valid"),
    ],
)
def test_browsers_get_a_page_and_programs_a_problem(client, path, status, words):
    response = client.get(path, headers=PAGE)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert words.lower() in response.text.lower()
    assert "<script>alert" not in response.text
    assert "script-src 'self'" in response.headers["content-security-policy"]
    plain = client.get(path)
    assert plain.status_code == status
    assert plain.headers["content-type"] == "application/problem+json"


def test_the_api_always_returns_problems(client):
    response = client.get("/api/v1/runs/nothing", headers=PAGE)
    assert response.headers["content-type"] == "application/problem+json"
