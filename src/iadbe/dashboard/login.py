"""Where one shows the server's token, and gets a cookie for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from iadbe.dashboard.frame import page
from iadbe.web.house import Client, Here, House
from iadbe.web.security import COOKIE, DAYS, is_token, session

router = APIRouter()


@router.get("/login")
def ask(house: Here, to: Annotated[str, Query(max_length=1000)] = "/", wrong: bool = False) -> HTMLResponse:
    """Ask for the token."""
    return _asked(house, to, wrong=wrong)


@router.post("/login")
def login(
    house: Here,
    request: Request,
    client: Client,
    token: Annotated[str, Form(max_length=1000)],
    to: Annotated[str, Form(max_length=1000)] = "/",
) -> Response:
    """Give a cookie for the token."""
    if seconds := house.logins.wait(client):
        told = _asked(house, to, wrong=True, status=429, seconds=seconds)
        told.headers["Retry-After"] = str(seconds)
        return told
    if not house.rules.token or not is_token(house.rules, token.strip()):
        return _asked(house, to, wrong=True, status=403)
    answer = RedirectResponse(inside(to), 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, session(house.rules), DAYS, httponly=True, samesite="strict", secure=secure)
    return answer


@router.post("/logout")
def logout() -> Response:
    """Take the cookie back."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def inside(to: str) -> str:
    """Return a path of this server; anything that could lead elsewhere becomes the start."""
    plain = to.startswith("/") and not to.startswith("//") and not set(to) & set("\\\r\n\t\0")
    return to if plain else "/"


def _asked(house: House, to: str, *, wrong: bool, status: int = 200, seconds: int = 0) -> HTMLResponse:
    needed = bool(house.rules.token)
    return page(
        "login", house, title="Log in", status=status, to=inside(to), wrong=wrong, needed=needed, seconds=seconds
    )
