"""What a person sees where a program would get a problem: one sentence, and the way back."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page


def explain(request: Request, status: int, detail: str) -> HTMLResponse:
    """Return a problem as a page."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Problem"
    sentence = detail[:1].upper() + detail[1:]
    return page("problem", request.app.state.house, title=phrase, status=status, code=status, sentence=sentence)
