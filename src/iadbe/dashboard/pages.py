"""All pages put onto a server."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from iadbe.dashboard import docs, leaderboard, login
from iadbe.dashboard.frame import STATIC

PARTS = (leaderboard, docs, login)


def install(app: FastAPI) -> None:
    """Add the pages, and the files that they need, to a server."""
    every = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    for part in PARTS:
        every.include_router(part.router)
    app.include_router(every)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if (assets := docs.assets()) is not None:
        app.mount("/docs-assets", StaticFiles(directory=assets), name="docs assets")
