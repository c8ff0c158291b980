"""Error responses as problem+json (RFC 9457): one sentence about what is wrong, and never a traceback."""

from __future__ import annotations

import json
import logging
import re
import secrets
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from iadbe.errors import BadConfig, BadData, BadDetector, IadbeError, Missing, NoSpace, UnknownName

MEDIA = "application/problem+json"
STATUS: dict[type[IadbeError], int] = {
    UnknownName: 404,
    BadConfig: 400,
    BadData: 422,
    BadDetector: 500,
    Missing: 501,
    NoSpace: 507,
}
DOCUMENTED = (400, 401, 403, 404, 405, 413, 415, 421, 422, 429, 500, 501, 503, 507)
MAX_WORD, MAX_DETAIL = 120, 1500  # characters of a word and of a whole detail
log = logging.getLogger("iadbe.web")


class FieldError(BaseModel):
    """One invalid field of a request."""

    where: str = Field(description="the field, for example `query.limit`")
    detail: str


class Problem(BaseModel):
    """An error, as RFC 9457 describes it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field("", description="the requested path")
    errors: list[FieldError] = Field([], description="the invalid fields of a request")


class RequestRefused(IadbeError):
    """A refused request, with its HTTP status and headers."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


def answer(
    status: int,
    detail: str,
    instance: str = "",
    errors: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a problem+json response."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Problem"
    problem = Problem(title=phrase, status=status, detail=detail, instance=instance, errors=errors or [])
    return Response(problem.model_dump_json(), status, headers, MEDIA)


def install(app: FastAPI, root: str) -> None:
    """Install the exception handlers of ``app``. ``root``, the store's folder, is left out of messages.

    Where pages are installed, ``app.state.error_page`` renders the problem for a browser that asked for a page.
    """

    def reply(request: Request, status: int, detail: str, **more: Any) -> Response:
        detail = shortened(detail)
        error_page = getattr(app.state, "error_page", None)
        if error_page is not None and _wants_page(request):
            page: Response = error_page(request, status, detail)
            page.headers.update(more.get("headers") or {})
            return page
        return answer(status, detail, request.url.path, **more)

    @app.exception_handler(IadbeError)
    def iadbe_error(request: Request, error: IadbeError) -> Response:
        if isinstance(error, RequestRefused):
            return reply(request, error.status, str(error), headers=error.headers)
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        return reply(request, status, str(error).replace(root, "the store"))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = f"there is nothing at {request.url.path}. The API is described at /docs."
        headers = dict(error.headers or {})
        if error.status_code == 405:  # a route knows only its own method, so Allow is put together here
            headers["Allow"] = ", ".join(_allowed(app, request))
            detail = f"{request.method} is not for {request.url.path}, but {headers['Allow']} is."
        return reply(request, error.status_code, detail, headers=headers)

    @app.exception_handler(RequestValidationError)
    def invalid_request(request: Request, error: RequestValidationError) -> Response:
        field_errors = [FieldError(where=".".join(map(str, e["loc"])), detail=e["msg"]) for e in error.errors()]
        summary = "; ".join(f"{f.where}: {f.detail}" for f in field_errors[:3])
        return reply(request, 422, f"the request is not valid: {summary}.", errors=field_errors)

    @app.exception_handler(Exception)
    def unexpected_error(request: Request, error: Exception) -> Response:
        if full := NoSpace.of(error):
            return reply(request, 507, str(full))
        if is_database_away(error):
            log.warning("the database is away: %s", error)
            detail = "the database is away. Try again in a moment."
            return reply(request, 503, detail, headers={"Retry-After": "5"})
        number = secrets.token_hex(4)
        log.error("bug %s at %s %s", number, request.method, request.url.path, exc_info=error)
        return reply(request, 500, f"this is a bug. The server's log has the details under {number}.")


def is_database_away(error: Exception) -> bool:
    """Return whether the database could not be reached, or has no connection left for this request."""
    from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

    return isinstance(error, (OperationalError, InterfaceError, TimeoutError))


def shortened(detail: str) -> str:
    """Cut long words, which come from the request, and a long text."""
    words = (w if len(w) <= MAX_WORD else f"{w[:MAX_WORD]}…" for w in detail.split(" "))
    text = " ".join(words)
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}…"


def _wants_page(request: Request) -> bool:
    is_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    return is_page and request.method in ("GET", "HEAD")


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """Return the documented methods of a request's path."""
    paths = app.openapi()["paths"].items()
    shape = "[^/]+"
    found = {
        m.upper() for path, ops in paths if re.fullmatch(re.sub(r"{.*?}", shape, path), request.url.path) for m in ops
    }
    return sorted(found | {"HEAD"} if "GET" in found else found) or ["GET", "HEAD"]


def document(schema: dict[str, Any]) -> dict[str, Any]:
    """Document :class:`Problem` as the error response of every operation, instead of FastAPI's own schema."""
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    own = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= own.pop("$defs") | {"Problem": own}
    content = {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in schema.get("paths", {}).values():
        for operation in operations.values():
            responses = operation["responses"]
            for status in DOCUMENTED:
                responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    return json.loads(json.dumps(schema))
