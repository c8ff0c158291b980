"""Builds the ASGI application: security middleware, API routes, error handlers and, optionally, pages."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI

from iadbe import __version__
from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from iadbe.web import (
    catalogue,
    comparisons,
    data,
    drift,
    events,
    exports,
    images,
    jobs,
    leaderboard,
    legacy,
    model_download,
    models,
    predict,
    problems,
    protocols,
    regions,
    runs,
    samples,
    statistics,
)
from iadbe.web.data_roots import DataRoots
from iadbe.web.planner import Planner
from iadbe.web.policy import Policy
from iadbe.web.run_cache import RunCache
from iadbe.web.security import SecurityMiddleware
from iadbe.web.sessions import Sessions
from iadbe.web.state import ServerState

API = "/api/v1"
DESCRIPTION = """
Results, models and jobs of one store.

**Errors** are `application/problem+json` (RFC 9457): `status`, `title`, and `detail`, one sentence about what is
wrong.

**Access.** A server that other machines can reach requires its token: `Authorization: Bearer TOKEN`. A request that
changes something and does not carry that header must carry `X-IADBE: 1`, which no other web site can send.
"""
TAGS = {
    "leaderboard": "Detectors ranked by their metrics.",
    "runs": "Single runs: parameters, metrics, scores, curves and logs.",
    "images": "Test images stored with runs, with anomaly maps and masks.",
    "datasets": "Data that new runs can use, and known datasets.",
    "detectors": "Registered detectors, settings and metrics, with a JSON Schema of their parameters.",
    "models": "Fitted detectors stored with runs, and their exported files.",
    "predict": "Scores images with a model.",
    "drift": "Whether the images of a model in use still resemble its calibration.",
    "jobs": "Queue of grids and exports that workers carry out.",
    "events": "Progress of jobs as server-sent events.",
    "legacy": "The ten paths of the original IADBE server, in their original form.",
}
API_MODULES = (
    *(leaderboard, statistics, runs, comparisons, images, data, samples, regions),
    *(catalogue, protocols, models, model_download, exports, predict, drift, jobs, events),
)


def build(
    store: Store,
    policy: Policy | None = None,
    url: str = "",
    data_roots: Mapping[str, Path] | None = None,
    device: str = "auto",
    pages: Callable[[FastAPI], None] | None = None,
) -> SecurityMiddleware:
    """Return the ASGI application of a store's server.

    ``url`` is the database of index and jobs. ``data_roots`` maps the names that requests may use to folders of data.
    ``pages`` installs the pages (:mod:`iadbe.dashboard`).
    """
    policy = policy or Policy()
    server = ServerState(
        store, policy, RunCache(store, url), Queue(store, url), DataRoots(store, data_roots), Planner(store.root),
        models.ModelCache(), Sessions(policy, store.root / ".revoked_sessions.json"), device,
        read_only=store.is_read_only,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=server.run_cache.now, daemon=True).start()  # read the runs before the first request
        yield
        server.shutting_down.set()
        server.planner.close()
        server.queue.close()
        server.run_cache.close()

    app = FastAPI(
        title="IADBE", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url=f"{API}/openapi.json", lifespan=lifespan, redirect_slashes=False,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        generate_unique_id_function=lambda route: "_".join([*map(str, route.tags), route.name]).replace(" ", "_"),
    )  # fmt: skip
    app.state.server = server
    problems.install(app, str(store.root))
    api = APIRouter(prefix=API)
    for module in API_MODULES:
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(legacy.router)
    if pages is not None:
        pages(app)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = with_security(problems.document(generate()))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return SecurityMiddleware(app, policy, server.sessions)


def with_security(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the security schemes to an OpenAPI document."""
    schema["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "csrf": {"type": "apiKey", "in": "header", "name": "X-IADBE", "description": "any value, such as 1"},
    }
    schema["security"] = [{"token": []}, {"csrf": []}, {}]
    return schema
