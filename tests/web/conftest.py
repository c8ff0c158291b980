"""A store with a few made runs, and a browser that talks to its server."""

import pytest

pytest.importorskip("fastapi", reason="the server needs the extra web")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from server_fixtures import client, filled, fitted, ids, serve  # noqa: F401
