import pytest

from iadbe.protocol import Protocol
from iadbe.web.protocols import ProtocolFields, fields_of, read

NAMES = [
    "uniform",
    "uniform@512x256,pad,native",
    "uniform@2048,crop,aligned=45/0.2/0.1,tiles=512/64/position/top0.1,native+60cpu-s+bf16+4batches",
    "uniform,aligned,tiles=64/8",
    "uniform@native,tiles=auto/position",
    "paper,native+600s",
]


OTHERS = {"overlap": {"tiles": "64"}, "top": {"tiles": "64"}, "fit": {"size": "native"}}  # fields that it needs


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_of_a_protocol_mean_that_protocol(name):
    fields = ProtocolFields(**fields_of(Protocol.parse(name)))
    assert read(fields) == (Protocol.parse(name), {})


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("size", "31", "at least 32 pixels"),
        ("size", "512x", "WIDTHxHEIGHT"),
        ("size", "5000", "from 32 to 4096"),
        ("fit", "pad", "changes nothing"),
        ("limits", "30", "DEGREES/SHIFT/SCALE"),
        ("limits", "30/0.9/0", "shifted by 0 to 0.5"),
        ("tiles", "16", "at least 32 pixels"),
        ("tiles", "../x", "SIDE/OVERLAP"),
        ("overlap", "40", "at most half"),
        ("overlap", "x", "SIDE/OVERLAP"),
        ("top", "2", "from 0 to 1"),
        ("budget", "soon", "is not a time"),
        ("accumulate", "0", "from 1 to"),
        ("accumulate", "²", "a number of batches"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(client, field, text, said):
    others = {"align": "template", **OTHERS.get(field, {})}
    found = client.get("/api/v1/protocol", params={**others, field: text}).json()
    assert found["name"] == ""
    assert set(found["errors"]) == {field}
    assert said in found["errors"][field]


def test_several_fields_are_reported_at_once(client):
    found = client.get("/api/v1/protocol", params={"size": "1", "budget": "soon", "tiles": "3"}).json()
    assert set(found["errors"]) == {"size", "budget", "tiles"}


def test_papers_have_their_own_views(client):
    found = client.get("/api/v1/protocol", params={"kind": "paper", "size": "512", "fit": "pad", "native": True}).json()
    assert found == {"name": "paper,native", "errors": {}}


def test_unknown_fields_and_words_are_refused(client):
    for params in ({"kind": "mine"}, {"fit": "stretch"}, {"sise": "512"}, {"size": "1" * 41}):
        assert client.get("/api/v1/protocol", params=params).status_code == 422


def test_a_grid_takes_every_protocol(client):
    for name in NAMES:
        grid = {"detectors": ["padim"], "data": ["toy"], "protocol": name}
        assert client.post("/api/v1/plan", json={"grid": grid}).status_code == 200, name
    for name in ("uniform@5000", "uniform@64x9999", "uniform,tiles=/etc/passwd"):
        grid = {"detectors": ["padim"], "data": ["toy"], "protocol": name}
        assert client.post("/api/v1/plan", json={"grid": grid}).status_code == 400, name
