"""The pages: where one starts, where one logs in, and the description of the API, which works without a network."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from iadbe import __version__
from iadbe.results import published
from iadbe.results.index import Which
from iadbe.web.house import Client, Here, House
from iadbe.web.leaderboard import made
from iadbe.web.security import COOKIE, DAYS, is_token, session

if TYPE_CHECKING:
    from jinja2 import Environment

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
HERE = Path(__file__).parent
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")
DOCS = (  # Swagger writes styles into the page
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@router.get("/")
def start(house: Here, dataset: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """Show the leaderboard of one dataset, the one with the most runs by default."""
    now = house.library.now()
    counts: dict[str, int] = {}
    for shelved in now.runs.values():
        counts[shelved.result.spec.dataset] = counts.get(shelved.result.spec.dataset, 0) + 1
    chosen = dataset or max(sorted(counts), key=counts.__getitem__, default="")
    tables = []
    if chosen:
        which = Which((chosen,))
        have = {m for c in house.library.comparisons(which) for m in c.metrics}
        usual = tuple(m for m in SHOWN if m in have)
        tables = made(house, which, usual, reported=published.DEFAULT)
    jobs, _ = house.queue.listed(limit=5)
    return _page(
        "start", house, title="Leaderboard", chosen=chosen, counts=counts, tables=tables, jobs=jobs,
        damaged=list(now.damaged.values()), runs=len(now.runs),
    )  # fmt: skip


@router.get("/docs")
def docs(house: Here) -> HTMLResponse:
    """Describe the API: with Swagger where its assets are installed, else with a link to the document."""
    page = _page("docs", house, title="API", assets=docs_assets() is not None)
    page.headers["Content-Security-Policy"] = DOCS
    return page


@router.get("/login")
def ask(house: Here, to: Annotated[str, Query(max_length=1000)] = "/", wrong: bool = False) -> HTMLResponse:
    """Ask for the token."""
    return _page("login", house, title="Log in", to=inside(to), wrong=wrong, needed=bool(house.rules.token))


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
        told = _page("login", house, title="Log in", to=inside(to), wrong=True, needed=True, seconds=seconds)
        told.status_code = 429
        told.headers["Retry-After"] = str(seconds)
        return told
    if not house.rules.token or not is_token(house.rules, token.strip()):
        told = _page("login", house, title="Log in", to=inside(to), wrong=True, needed=bool(house.rules.token))
        told.status_code = 403
        return told
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


def docs_assets() -> Path | None:
    """Return the folder with Swagger's files, from a Python package; None where that is not installed."""
    found = importlib.util.find_spec("fastapi_offline")
    folder = Path(found.origin).parent / "static" if found and found.origin else None
    return folder if folder and (folder / "swagger-ui-bundle.js").is_file() else None


def _page(name: str, house: House, **values: Any) -> HTMLResponse:
    known = {"version": __version__, "store": house.store.root.name, "token": bool(house.rules.token)}
    return HTMLResponse(_templates().get_template(f"{name}.html.jinja").render(**{"seconds": 0, **known, **values}))


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
