"""Installs all pages and static files on a server."""

from __future__ import annotations

import mimetypes
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from iadbe.dashboard import (
    assets,
    compare,
    data,
    detectors,
    docs,
    inspect,
    jobs,
    leaderboard,
    line,
    login,
    new_run,
    problem,
    regions,
    run,
    runs,
    training,
)
from iadbe.dashboard.layout import STATIC

PAGE_MODULES = (
    leaderboard,
    runs,
    run,
    compare,
    docs,
    login,
    assets,
    detectors,
    data,
    regions,
    new_run,
    jobs,
    inspect,
    line,
    training,
)


class Files(StaticFiles):
    """Static files that a browser revalidates on every request."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        """Return a file, or 304 where it has not changed."""
        answer = super().file_response(*given, **more)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def install(app: FastAPI) -> None:
    """Add the pages and their static files to a server."""
    pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    for module in PAGE_MODULES:
        pages.include_router(module.router)
    app.include_router(pages)
    app.state.error_page = problem.error_page
    for kind, ending in (("text/javascript", ".js"), ("text/css", ".css"), ("image/svg+xml", ".svg")):
        mimetypes.add_type(kind, ending)  # Windows takes them from its registry, into which any program may write
    app.mount("/static", Files(directory=STATIC), name="static")
    if (swagger := docs.assets()) is not None:
        app.mount("/docs-assets", Files(directory=swagger), name="docs assets")
