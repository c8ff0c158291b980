"""The description of the API, to read and to try out, without a network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.web.house import Here

router = APIRouter()
POLICY = (  # Swagger writes styles into the page
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@router.get("/docs")
def docs(house: Here) -> HTMLResponse:
    """Describe the API: with Swagger where its assets are installed, else with a link to the document."""
    answer = page("docs", house, title="API", at="/docs", assets=assets() is not None)
    answer.headers["Content-Security-Policy"] = POLICY
    return answer


def assets() -> Path | None:
    """Return the folder with Swagger's files, from a Python package; None where that is not installed."""
    found = importlib.util.find_spec("fastapi_offline")
    folder = Path(found.origin).parent / "static" if found and found.origin else None
    return folder if folder and (folder / "swagger-ui-bundle.js").is_file() else None
