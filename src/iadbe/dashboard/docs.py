"""The page of the API documentation: Swagger UI from local files, so that it works offline."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.web.state import Server

router = APIRouter()
POLICY = (  # Swagger UI needs inline styles
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@router.get("/docs")
def docs(server: Server) -> HTMLResponse:
    """Render the API documentation: Swagger UI where it is installed, else a link to the OpenAPI document."""
    answer = page("docs", server, title="API", at="/docs", assets=assets() is not None)
    answer.headers["Content-Security-Policy"] = POLICY
    return answer


def assets() -> Path | None:
    """Return the folder of Swagger UI's files; None where its Python package is not installed."""
    found = importlib.util.find_spec("fastapi_offline")
    folder = Path(found.origin).parent / "static" if found and found.origin else None
    return folder if folder and (folder / "swagger-ui-bundle.js").is_file() else None
