import pytest

PAGE = {"accept": "text/html,application/xhtml+xml"}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/runs/nothing", 404, "There is no run"),
        ("/?dataset=%3Cscript%3Ealert(1)%3C/script%3E", 404, "no run has the dataset"),
        ("/nowhere", 404, "There is nothing at /nowhere"),
        ("/runs?page=x", 422, "not as documented"),
    ],
)
def test_people_get_a_page_and_programs_a_problem(client, path, status, words):
    told = client.get(path, headers=PAGE)
    assert told.status_code == status
    assert told.headers["content-type"].startswith("text/html")
    assert words.lower() in told.text.lower()
    assert "<script>alert" not in told.text
    assert "script-src 'self'" in told.headers["content-security-policy"]
    plain = client.get(path)
    assert plain.status_code == status
    assert plain.headers["content-type"] == "application/problem+json"


def test_the_api_speaks_to_programs_alone(client):
    told = client.get("/api/v1/runs/nothing", headers=PAGE)
    assert told.headers["content-type"] == "application/problem+json"
