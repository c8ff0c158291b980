"""Every error as problem+json (RFC 9457): what went wrong in one sentence, and never a traceback."""

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
log = logging.getLogger("iadbe.web")


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="for example `query.limit`")
    detail: str


class Problem(BaseModel):
    """What went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field("", description="the path that was asked for")
    errors: list[Fault] = Field([], description="of a request that is not as documented")


class Refused(IadbeError):
    """A request that cannot be granted, with the status that says so."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


def answer(
    status: int,
    detail: str,
    instance: str = "",
    errors: list[Fault] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a problem as a response."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Problem"
    problem = Problem(title=phrase, status=status, detail=detail, instance=instance, errors=errors or [])
    return Response(problem.model_dump_json(), status, headers, MEDIA)


def install(app: FastAPI, root: str) -> None:
    """Let every error of ``app`` end as a problem; ``root``, the store's folder, is nobody's business.

    Where pages are installed, a browser that asked for one gets the problem as a page: ``app.state.explain`` makes it.
    """

    def reply(request: Request, status: int, detail: str, **more: Any) -> Response:
        explain = getattr(app.state, "explain", None)
        if explain is not None and _wants_page(request):
            page: Response = explain(request, status, detail)
            page.headers.update(more.get("headers") or {})
            return page
        return answer(status, detail, request.url.path, **more)

    @app.exception_handler(IadbeError)
    def told(request: Request, error: IadbeError) -> Response:
        if isinstance(error, Refused):
            return reply(request, error.status, str(error), headers=error.headers)
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        return reply(request, status, str(error).replace(root, "the store"))

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = f"there is nothing at {request.url.path}. The API is described at /docs."
        headers = dict(error.headers or {})
        if error.status_code == 405:  # each route knows only its own method
            headers["Allow"] = ", ".join(_allowed(app, request))
            detail = f"{request.method} is not for {request.url.path}, but {headers['Allow']} is."
        return reply(request, error.status_code, detail, headers=headers)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        faults = [Fault(where=".".join(map(str, e["loc"])), detail=e["msg"]) for e in error.errors()]
        told = "; ".join(f"{f.where}: {f.detail}" for f in faults[:3])
        return reply(request, 422, f"the request is not as documented: {told}.", errors=faults)

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        if full := NoSpace.of(error):
            return reply(request, 507, str(full))
        number = secrets.token_hex(4)
        log.error("bug %s at %s %s", number, request.method, request.url.path, exc_info=error)
        return reply(request, 500, f"this is a bug. The server's log has the details under {number}.")


def _wants_page(request: Request) -> bool:
    is_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    return is_page and request.method in ("GET", "HEAD")


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """Return the methods that the path of a request is described with."""
    paths = app.openapi()["paths"].items()
    shape = "[^/]+"
    found = {
        m.upper() for path, ops in paths if re.fullmatch(re.sub(r"{.*?}", shape, path), request.url.path) for m in ops
    }
    return sorted(found) or ["GET"]


def document(schema: dict[str, Any]) -> dict[str, Any]:
    """Put problems into an OpenAPI document, where FastAPI has its own form of an error."""
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
