"""The login page: exchanges the server's token for a session cookie."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from iadbe.dashboard.layout import page
from iadbe.web.security import COOKIE, is_token, session_cookie
from iadbe.web.sessions import SESSION_SECONDS
from iadbe.web.state import ClientAddress, Server, ServerState

router = APIRouter()


@router.get("/login")
def form(server: Server, to: Annotated[str, Query(max_length=1000)] = "/", wrong: bool = False) -> HTMLResponse:
    """Render the login form."""
    return _form(server, to, wrong=wrong)


@router.post("/login")
def login(
    server: Server,
    request: Request,
    client: ClientAddress,
    token: Annotated[str, Form(max_length=1000)],
    to: Annotated[str, Form(max_length=1000)] = "/",
) -> Response:
    """Set a session cookie where the token is right."""
    if not server.policy.token or not is_token(server.policy, token.strip()):
        seconds = server.login_limiter.take(client)  # the right token is never limited
        if not seconds:
            return _form(server, to, wrong=True, status=403)
        response = _form(server, to, wrong=True, status=429, seconds=seconds)
        response.headers["Retry-After"] = str(seconds)
        return response
    answer = RedirectResponse(local_path(to), 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(
        COOKIE, server.sessions.create(), SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
    )
    return answer


@router.post("/logout")
def logout(server: Server, request: Request) -> Response:
    """End the session, and delete its cookie."""
    server.sessions.revoke(session_cookie(request.headers))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def local_path(to: str) -> str:
    """Return a path of this server; ``/`` for anything that could redirect to another one."""
    plain = to.startswith("/") and not to.startswith("//") and not set(to) & set("\\\r\n\t\0")
    return to if plain else "/"


def _form(server: ServerState, to: str, *, wrong: bool, status: int = 200, seconds: int = 0) -> HTMLResponse:
    is_needed = bool(server.policy.token)
    return page(
        "login",
        server,
        title="Log in",
        status=status,
        to=local_path(to),
        wrong=wrong,
        needed=is_needed,
        seconds=seconds,
    )
