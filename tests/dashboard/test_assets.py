import gzip

import pytest

from iadbe.dashboard import assets

pytest.importorskip("plotly")


def test_plotly_is_served_compressed_and_cached(client):
    address = assets.address()
    response = client.get(address)
    assert response.headers["content-encoding"] == "gzip"
    assert "immutable" in response.headers["cache-control"]
    assert "Plotly, Inc." in response.text[:300]
    plain = client.get(address, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == response.content
    assert len(gzip.compress(plain.content)) < len(plain.content) / 2
    assert address in client.get("/").text


@pytest.mark.parametrize("name", ["plotly.min.js", "widgetbundle.js", "..%2F__init__.py"])
def test_no_other_asset_is_served(client, name):
    assert client.get(f"/assets/{name}").status_code == 404


def test_without_plotly_pages_say_so(client, monkeypatch):
    monkeypatch.setattr(assets, "address", lambda: "")
    assert 'data-plotly=""' in client.get("/").text
