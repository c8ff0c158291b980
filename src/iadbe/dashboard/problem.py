"""The error page: the same sentence that the API returns as a problem."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page


def error_page(request: Request, status: int, detail: str) -> HTMLResponse:
    """Render a problem as a page."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Problem"
    sentence = detail[:1].upper() + detail[1:]
    return page("problem", request.app.state.server, title=phrase, status=status, code=status, sentence=sentence)
