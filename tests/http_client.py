"""A client of a server over a store."""


def opened(store, rules=None, *, base="http://localhost", headers=None, **more):
    """Return a client of a store's server; enter it before use."""
    from starlette.testclient import TestClient

    from iadbe.dashboard.pages import install
    from iadbe.web.app import build

    client = TestClient(build(store, rules, pages=install, **more), base_url=base, raise_server_exceptions=False)
    client.headers.update({"x-iadbe": "1"} if headers is None else headers)
    client.server = client.app.app.state.server
    return client
