"""Security middleware: host check, authentication, CSRF protection, body limits and security headers.

A request passes when its Host is an accepted one (against DNS rebinding), when it carries the token (in a header, or as
the session cookie that a login sets), and, if it changes anything, when it comes from the same origin or carries a
header that no other site can send (against cross-site request forgery).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response

from iadbe.files.byte_sizes import format_bytes
from iadbe.web.limits import RateLimiter
from iadbe.web.number_ranges import whole_number
from iadbe.web.policy import Policy, is_address
from iadbe.web.problems import answer
from iadbe.web.sessions import Sessions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "iadbe_session"
HEADER = "x-iadbe"  # another site needs a CORS preflight to send it, and none is ever granted
SAFE = ("GET", "HEAD", "OPTIONS")
PUBLIC = ("/login", "/static/")  # paths without authentication
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
UPLOADS = {"/api/v1/datasets": "upload", "/api/v1/predict": "predict_body"}  # path -> field of the policy


class SecurityMiddleware:
    """ASGI middleware that applies a :class:`Policy` to every request."""

    def __init__(self, app: Any, policy: Policy, sessions: Sessions) -> None:
        self.app = app
        self.policy = policy
        self.sessions = sessions
        self._failures = RateLimiter(policy.failures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # no web sockets
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = Headers(scope=scope)
            refusal = self._refusal(scope, headers)
            application = refusal or self.app
            if scope["method"] == "HEAD":
                application = _headers_alone(application)
            await application(scope, self._limit_body(scope, receive), self._with_headers(scope, headers, send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, method, client = scope["path"], scope["method"], (scope.get("client") or ("",))[0]
        if not self._is_own_host(headers.get("host", "")):
            return answer(421, "this server does not go by that name. Start it with --names NAME if it should.", path)
        if self._is_embedded(path, headers):
            return answer(403, "other sites may link to these pages, but not embed them.", path)
        has_token = self._has_token(headers)
        unknown = self.policy.token and not has_token and not _is_public(path)
        if unknown and not self.sessions.is_valid(session_cookie(headers)):
            return self._unauthenticated(scope, headers, client)
        if method not in SAFE and not has_token and (cross_site := self._cross_site(headers)):
            return answer(403, cross_site, path)
        length = whole_number(headers.get("content-length", "0"))
        if length is None or length > self._limit(scope):
            return answer(413, f"the request is too long: {format_bytes(self._limit(scope))} are allowed here.", path)
        return None

    def _is_own_host(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.policy.hosts or (self.policy.open and is_address(name))

    def _has_token(self, headers: Headers) -> bool:
        """Return whether the Authorization header carries the token. A browser never sends it by itself."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        return bool(self.policy.token) and kind.lower() == "bearer" and is_token(self.policy, given.strip())

    def _is_embedded(self, path: str, headers: Headers) -> bool:
        """Return whether another site embeds this resource, for example as an image or a script."""
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return False
        is_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return not is_page and not (_is_legacy(path) and headers.get("origin") in self.policy.legacy_origins)

    def _unauthenticated(self, scope: Scope, headers: Headers, client: str) -> Response:
        """Return the response to a request without authentication."""
        path = scope["path"]
        if "authorization" in headers:
            if seconds := self._failures.take(client):  # the right token is never limited
                detail = f"too many wrong tokens. Try again in {seconds} s."
                return answer(429, detail, path, headers={"Retry-After": str(seconds)})
        elif "text/html" in headers.get("accept", "") and not path.startswith("/api/"):
            query = scope.get("query_string", b"").decode("ascii", "replace")
            return RedirectResponse(f"/login?to={quote(path + ('?' + query if query else ''))}", 303)
        detail = "a token is needed: Authorization: Bearer TOKEN, or log in at /login."
        return answer(401, detail, path, headers={"WWW-Authenticate": "Bearer"})

    def _cross_site(self, headers: Headers) -> str:
        """Say why an unsafe request may be cross-site; empty if it is not."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        own = {f"{scheme}://{headers.get('host', '')}" for scheme in ("http", "https")}  # a proxy may end TLS
        if (origin is not None and origin not in own) or site not in (None, "same-origin", "none"):
            return "this request comes from another site."
        if origin is None and HEADER not in headers:
            return "a request that changes something needs the header X-IADBE: 1."
        return ""

    def _limit(self, scope: Scope) -> int:
        name = UPLOADS.get(scope["path"], "body") if scope["method"] == "POST" else "body"
        return int(getattr(self.policy, name)) + (self.policy.body if name != "body" else 0)

    def _limit_body(self, scope: Scope, receive: Receive) -> Receive:
        """Count the bytes received, whatever Content-Length said."""
        limit, received = self._limit(scope), 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, f"the request is too long: {format_bytes(limit)} are allowed here.")
            return message

        return receive_limited

    def _with_headers(self, scope: Scope, headers: Headers, send: Send) -> Send:
        """Add the security headers to a response."""
        legacy_origin = headers.get("origin", "") if headers.get("origin") in self.policy.legacy_origins else ""
        old = _is_legacy(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
                own.add_vary_header("Origin")
                if legacy_origin and old and scope["method"] in SAFE:
                    own["Access-Control-Allow-Origin"] = legacy_origin
            await send(message)

        return send_with_headers


def _headers_alone(application: Any) -> Any:
    """Answer as to GET, without the body. The first part of a body ends the response, so that endless ones end too."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        is_over = False

        async def send_headers(message: Message) -> None:
            nonlocal is_over
            if message["type"] == "http.response.start":
                await send(message)
            elif message["type"] == "http.response.body" and not is_over:
                is_over = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await application({**scope, "method": "GET"}, receive, send_headers)

    return answered


def is_token(policy: Policy, given: str) -> bool:
    """Compare with the token in constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), policy.token.encode())


def session_cookie(headers: Headers) -> str:
    """Return the session cookie of a request, else the empty string."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _is_legacy(path: str) -> bool:
    return path.startswith("/api/") and not path.startswith("/api/v1")


def _is_public(path: str) -> bool:
    return any(path == public or (public.endswith("/") and path.startswith(public)) for public in PUBLIC)
