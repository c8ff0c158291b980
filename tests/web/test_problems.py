import errno

import pytest

from iadbe.errors import BadConfig, BadData, Missing, NoSpace, UnknownName

MEDIA = "application/problem+json"


def breaks(client, monkeypatch, error):
    def list_(*a, **k):
        raise error

    monkeypatch.setattr(client.house.queue, "listed", list_)
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
def test_a_users_mistake_is_one_sentence(client, monkeypatch, error, status):
    told = breaks(client, monkeypatch, error)
    assert (told.status_code, told.headers["content-type"]) == (status, MEDIA)
    body = told.json()
    assert body["status"] == status
    assert body["instance"] == "/api/v1/jobs"
    assert set(body) == {"type", "title", "status", "detail", "instance", "errors"}
    if status != 507:
        assert body["detail"] == str(error)


def test_where_the_store_lies_is_nobodys_business(client, monkeypatch):
    told = breaks(client, monkeypatch, BadConfig(f"{client.house.store.root}/x is odd."))
    assert told.json()["detail"] == "the store/x is odd."


def test_a_bug_says_nothing_of_itself_but_a_number(client, monkeypatch, caplog):
    told = breaks(client, monkeypatch, ZeroDivisionError("secret-of-the-house"))
    assert (told.status_code, told.headers["content-type"]) == (500, MEDIA)
    assert "secret" not in told.text
    number = told.json()["detail"].split()[-1].rstrip(".")
    assert number in caplog.text


@pytest.mark.parametrize("path", ["/none", "/api/v1/none", "/api/v1/runs/0123456789ab", "/static/none.css"])
def test_what_is_not_there(client, path):
    told = client.get(path)
    assert (told.status_code, told.headers["content-type"]) == (404, MEDIA)


def test_a_request_that_is_not_as_documented_names_the_places(client):
    told = client.get("/api/v1/runs", params={"limit": 0, "seed": "x"})
    assert (told.status_code, told.headers["content-type"]) == (422, MEDIA)
    assert {e["where"] for e in told.json()["errors"]} == {"query.limit", "query.seed.0"}
    told = client.post("/api/v1/jobs", content=b"{", headers={"content-type": "application/json"})
    assert told.status_code == 422
    told = client.put("/api/v1/jobs")
    assert (told.status_code, told.headers["allow"]) == (405, "GET, POST")
    assert client.patch("/api/v1/datasets/x").headers["allow"] == "DELETE, GET"
    assert client.post("/api/v1/datasets/x/check").headers["allow"] == "GET"


def test_they_are_in_the_description(client):
    schema = client.get("/api/v1/openapi.json").json()
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    assert schema["components"]["schemas"]["Problem"]["properties"]["detail"]["type"] == "string"
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            found = operation["responses"]["422"]["content"]
            assert list(found) == [MEDIA], path
