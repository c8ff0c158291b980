"""Fixtures: a store with a few fake runs, and clients of its server."""

import pytest

pytest.importorskip("fastapi", reason="the server needs the extra web")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from server_fixtures import client, filled, fitted, ids, serve  # noqa: F401
