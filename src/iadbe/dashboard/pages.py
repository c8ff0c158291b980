"""All pages put onto a server."""

from __future__ import annotations

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
    login,
    new,
    problem,
    run,
    runs,
    training,
)
from iadbe.dashboard.frame import STATIC

PARTS = (
    leaderboard,
    runs,
    run,
    compare,
    docs,
    login,
    assets,
    detectors,
    data,
    new,
    jobs,
    inspect,
    training,
)


class Files(StaticFiles):
    """Files that a browser keeps, and asks each time whether they are still the same."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        """Answer with a file, or that it has not changed."""
        answer = super().file_response(*given, **more)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


def install(app: FastAPI) -> None:
    """Add the pages, and the files that they need, to a server."""
    every = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    for part in PARTS:
        every.include_router(part.router)
    app.include_router(every)
    app.state.explain = problem.explain
    app.mount("/static", Files(directory=STATIC), name="static")
    if (swagger := docs.assets()) is not None:
        app.mount("/docs-assets", Files(directory=swagger), name="docs assets")
