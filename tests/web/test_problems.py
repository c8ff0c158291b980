import errno

import pytest

from iadbe.errors import BadConfig, BadData, Missing, NoSpace, UnknownName

MEDIA = "application/problem+json"


def breaks(client, monkeypatch, error):
    def list_(*a, **k):
        raise error

    monkeypatch.setattr(client.server.queue, "list_jobs", list_)
    return client.get("/api/v1/jobs")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownName("no detector is named 'x'."), 404),
        (BadConfig("this does not fit."), 400),
        (BadData("x.png is broken."), 422),
        (Missing("pip install it."), 501),
        (NoSpace("the disk is full."), 507),
        (OSError(errno.ENOSPC, "No space left", "/disk"), 507),
    ],
)
def test_a_user_error_is_one_sentence(client, monkeypatch, error, status):
    answer = breaks(client, monkeypatch, error)
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA)
    body = answer.json()
    assert body["status"] == status
    assert body["instance"] == "/api/v1/jobs"
    assert set(body) == {"type", "title", "status", "detail", "instance", "errors"}
    if status != 507:
        assert body["detail"] == str(error)


def test_errors_hide_the_path_of_the_store(client, monkeypatch):
    answer = breaks(client, monkeypatch, BadConfig(f"{client.server.store.root}/x is odd."))
    assert answer.json()["detail"] == "the store/x is odd."


def test_a_bug_shows_only_a_number(client, monkeypatch, caplog):
    answer = breaks(client, monkeypatch, ZeroDivisionError("secret-detail"))
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA)
    assert "secret" not in answer.text
    number = answer.json()["detail"].split()[-1].rstrip(".")
    assert number in caplog.text


@pytest.mark.parametrize("path", ["/none", "/api/v1/none", "/api/v1/runs/0123456789ab", "/static/none.css"])
def test_unknown_resources_are_not_found(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA)


def test_an_invalid_request_names_the_fields(client):
    answer = client.get("/api/v1/runs", params={"limit": 0, "seed": "x"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, MEDIA)
    assert {e["where"] for e in answer.json()["errors"]} == {"query.limit", "query.seed.0"}
    answer = client.post("/api/v1/jobs", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    answer = client.put("/api/v1/jobs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert client.patch("/api/v1/datasets/x").headers["allow"] == "DELETE, GET, HEAD"
    assert client.post("/api/v1/datasets/x/check").headers["allow"] == "GET, HEAD"


def test_problems_are_documented(client):
    schema = client.get("/api/v1/openapi.json").json()
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    assert schema["components"]["schemas"]["Problem"]["properties"]["detail"]["type"] == "string"
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            found = operation["responses"]["422"]["content"]
            assert list(found) == [MEDIA], path


def test_a_database_that_is_away_is_not_a_bug(client, monkeypatch):
    from sqlalchemy.exc import OperationalError

    answer = breaks(client, monkeypatch, OperationalError("SELECT secret", {}, Exception("connection refused")))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "secret" not in answer.text
