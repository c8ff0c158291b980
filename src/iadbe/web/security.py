"""Stands before everything: who may come in, which page may send a request, how long it may be, what a browser may do.

A request passes when its Host is one of ours (else a foreign name could be made to point here), when it has the token
(in a header, or the cookie that a login gives), and, if it changes anything, when it comes from our own page or carries
a header that no foreign page can send.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response

from iadbe.web.limits import Rate
from iadbe.web.problems import answer
from iadbe.web.rules import Rules, is_address

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

COOKIE = "iadbe_session"
HEADER = "x-iadbe"  # a foreign page cannot send it without asking first, and we never agree
DAYS = 7 * 24 * 3600  # that a login lasts
SAFE = ("GET", "HEAD", "OPTIONS")
FREE = ("/login", "/static/")  # paths that need no token
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
UPLOADS = {"/api/v1/datasets": "upload", "/api/v1/predict": "predict_body"}  # path -> its limit in the rules


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, rules: Rules) -> None:
        self.app = app
        self.rules = rules
        self._failures = Rate(rules.failures)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # a web socket: there are none
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = Headers(scope=scope)
            refusal = self._refusal(scope, headers)
            application = refusal or self.app
            await application(scope, self._limited(scope, receive), self._armoured(scope, headers, send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, method, client = scope["path"], scope["method"], (scope.get("client") or ("",))[0]
        if not self._is_ours(headers.get("host", "")):
            return answer(421, "this server does not go by that name. Start it with --names NAME if it should.", path)
        if self.rules.token and "authorization" in headers and self._failures.is_spent(client):
            return answer(429, "too many wrong tokens. Wait a minute.", path, headers={"Retry-After": "60"})
        if self._is_embedded(path, headers):
            return answer(403, "other sites may link to these pages, and not use them.", path)
        has_token = self._has_token(headers)
        unknown = self.rules.token and not has_token and not _is_free(path)
        if unknown and not is_session(self.rules, _cookie(headers)):
            return self._unknown(scope, headers, client)
        if method not in SAFE and not has_token and (foreign := self._foreign(headers)):
            return answer(403, foreign, path)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limit(scope):
            return answer(413, f"that is too long: {self._limit(scope)} bytes are allowed here.", path)
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.rules.hosts or (self.rules.open and is_address(name))

    def _has_token(self, headers: Headers) -> bool:
        """Say whether a program shows the token, which no browser does by itself."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        return bool(self.rules.token) and kind.lower() == "bearer" and is_token(self.rules, given.strip())

    def _is_embedded(self, path: str, headers: Headers) -> bool:
        """Say whether a foreign page has made the browser ask for this, as an image or a script, and not as a page."""
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return False
        is_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return not is_page and not (_is_old(path) and headers.get("origin") in self.rules.friends)

    def _unknown(self, scope: Scope, headers: Headers, client: str) -> Response:
        """Return what somebody without a token gets."""
        path = scope["path"]
        if "authorization" in headers:
            self._failures.wait(client)
        elif "text/html" in headers.get("accept", "") and not path.startswith("/api/"):
            query = scope.get("query_string", b"").decode("ascii", "replace")
            return RedirectResponse(f"/login?to={quote(path + ('?' + query if query else ''))}", 303)
        told = "a token is needed: Authorization: Bearer TOKEN, or log in at /login."
        return answer(401, told, path, headers={"WWW-Authenticate": "Bearer"})

    def _foreign(self, headers: Headers) -> str:
        """Say why a request that changes something may come from somebody else's page; empty if it cannot."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        own = {f"{scheme}://{headers.get('host', '')}" for scheme in ("http", "https")}  # a proxy may add the s
        if (origin is not None and origin not in own) or site not in (None, "same-origin", "none"):
            return "this request comes from another site."
        if origin is None and HEADER not in headers:
            return "say that this request is meant, with the header X-IADBE: 1."
        return ""

    def _limit(self, scope: Scope) -> int:
        name = UPLOADS.get(scope["path"], "body") if scope["method"] == "POST" else "body"
        return int(getattr(self.rules, name)) + (self.rules.body if name != "body" else 0)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Count what comes in, whatever its header said."""
        limit, came = self._limit(scope), 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > limit:
                raise HTTPException(413, f"that is too long: {limit} bytes are allowed here.")
            return message

        return counted

    def _armoured(self, scope: Scope, headers: Headers, send: Send) -> Send:
        """Tell the browser what the answer may do."""
        friend = headers.get("origin", "") if headers.get("origin") in self.rules.friends else ""
        old = _is_old(scope["path"])

        async def armed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
                own.add_vary_header("Origin")
                if friend and old and scope["method"] in SAFE:
                    own["Access-Control-Allow-Origin"] = friend
            await send(message)

        return armed


def is_token(rules: Rules, given: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), rules.token.encode())


def session(rules: Rules, now: float | None = None) -> str:
    """Return the cookie of somebody who has shown the token. It outlives the server, and dies with the token."""
    ends = str(int((time.time() if now is None else now) + DAYS))
    return f"{ends}.{_signed(rules, ends)}"


def is_session(rules: Rules, cookie: str) -> bool:
    """Say whether the cookie is one of ours, and not too old."""
    ends, _, signature = cookie.partition(".")
    whole = hmac.compare_digest(signature.encode(), _signed(rules, ends).encode())
    return bool(rules.token) and whole and ends.isdigit() and int(ends) > time.time()


def _signed(rules: Rules, text: str) -> str:
    key = hashlib.sha256(b"iadbe session " + rules.token.encode()).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _is_old(path: str) -> bool:
    return path.startswith("/api/") and not path.startswith("/api/v1")


def _is_free(path: str) -> bool:
    return any(path == free or (free.endswith("/") and path.startswith(free)) for free in FREE)
