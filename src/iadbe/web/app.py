"""The server put together: rules in front, the API behind, problems where something goes wrong."""

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
    events,
    images,
    jobs,
    leaderboard,
    legacy,
    models,
    predict,
    problems,
    runs,
    samples,
    standing,
)
from iadbe.web.house import House
from iadbe.web.library import Library
from iadbe.web.places import Places
from iadbe.web.rules import Rules
from iadbe.web.security import Guard

API = "/api/v1"
ABOUT = """
Results, models and jobs of one store.

**Errors** are `application/problem+json` (RFC 9457): `status`, `title`, and `detail`, one sentence that says what is
wrong.

**Access.** A server that other machines reach asks for its token: `Authorization: Bearer TOKEN`. A request that changes
something and does not carry the token in that header must carry `X-IADBE: 1`, which no foreign web page can send.
"""
TAGS = {
    "leaderboard": "Detectors side by side, ranked.",
    "runs": "Single runs: what was asked and what came out.",
    "images": "The test images that runs have kept, with heat maps and masks.",
    "datasets": "The data that runs are about, and the data that new runs may use.",
    "detectors": "What can be run, with the form of its parameters; settings and metrics likewise.",
    "models": "Fitted detectors that can score images.",
    "predict": "Score images with a model.",
    "jobs": "Grids to be run by workers.",
    "events": "What happens, as it happens (server-sent events).",
    "the original server": "The ten paths of the server that came before, in their old form.",
}
PARTS = (
    *(leaderboard, standing, runs, comparisons, images, data, samples),
    *(catalogue, models, predict, jobs, events),
)


def build(
    store: Store,
    rules: Rules | None = None,
    url: str = "",
    places: Mapping[str, Path] | None = None,
    device: str = "auto",
    pages: Callable[[FastAPI], None] | None = None,
) -> Guard:
    """Return the server of a store as an ASGI application.

    ``url`` is the database of index and jobs; ``places`` are folders of data by the name that requests know them by;
    ``pages`` adds what people look at (:mod:`iadbe.dashboard`).
    """
    rules = rules or Rules()
    house = House(store, rules, Library(store, url), Queue(store, url), Places(store, places), device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=house.library.now, daemon=True).start()  # so that the first page finds the runs read
        yield
        house.ending.set()
        house.queue.close()
        house.library.close()

    app = FastAPI(
        title="IADBE", version=__version__, description=ABOUT, docs_url=None, redoc_url=None,
        openapi_url=f"{API}/openapi.json", lifespan=lifespan, redirect_slashes=False,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        generate_unique_id_function=lambda route: "_".join([*map(str, route.tags), route.name]).replace(" ", "_"),
    )  # fmt: skip
    app.state.house = house
    problems.install(app, str(store.root))
    api = APIRouter(prefix=API)
    for part in PARTS:
        api.include_router(part.router)
    app.include_router(api)
    app.include_router(legacy.router)
    if pages is not None:
        pages(app)
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = secured(problems.document(plain()))
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    return Guard(app, rules)


def secured(schema: dict[str, Any]) -> dict[str, Any]:
    """Say in an OpenAPI document how one comes in."""
    schema["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "meant": {"type": "apiKey", "in": "header", "name": "X-IADBE", "description": "any value, such as 1"},
    }
    schema["security"] = [{"token": []}, {"meant": []}, {}]
    return schema
