"""A sink that posts each verdict as JSON to an address.

Headers: ``Idempotency-Key``, the verdict's id, which is the same whenever it is sent again; and with a secret
``X-Signature-256``, ``sha256=`` and the HMAC-SHA256 (RFC 2104) of the body in hex, which shows who has sent it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import urllib.request
from typing import ClassVar
from urllib.parse import urlsplit

import iadbe
from iadbe.errors import BadConfig
from iadbe.watching.delivery import Sink

LOCAL = ("localhost", "127.0.0.1", "::1")  # hosts that may be addressed without encryption
SECONDS = 20.0  # that the receiver may take


class Webhook(Sink):
    """Posts to one address. An answer of 2xx means that the verdict was taken."""

    name: ClassVar[str] = "webhook"

    def __init__(self, address: str, secret: str = "") -> None:
        """Check the address: https, or http on this machine. Raises :class:`BadConfig`."""
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadConfig(f"--webhook takes an address such as https://line.example/verdicts, not {address!r}.")
        if parts.scheme == "http" and parts.hostname not in LOCAL:
            raise BadConfig("--webhook sends verdicts encrypted: give an address that begins with https://.")
        if parts.username or parts.password:
            raise BadConfig("--webhook takes no password in its address: sign with --webhook-secret instead.")
        self._address = address
        self._secret = secret.encode()
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, line: str) -> None:
        """Post one verdict. Raises OSError where it was not taken."""
        body = line.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"iadbe/{iadbe.__version__}",
            "Idempotency-Key": str(json.loads(line)["id"]),
        }
        if self._secret:
            headers["X-Signature-256"] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        request = urllib.request.Request(self._address, body, headers, method="POST")
        with self._opener.open(request, timeout=SECONDS) as response:
            response.read(1024)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: a verdict and its signature go to the address that was given, to no other."""

    def redirect_request(self, *_: object) -> None:
        """Return None, which makes the answer an error."""
