"""Access and resource limits of a server: token, host names, request sizes and rates. Fixed when the server starts."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass
from typing import Any

from iadbe.errors import BadConfig

MIB = 2**20
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MIN_TOKEN = 16  # characters of a token that the operator chooses


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of one server."""

    token: str = ""  # empty: no authentication, allowed only on a loopback address
    hosts: frozenset[str] = LOOPBACK  # accepted Host names; with ``open``, any IP address too
    open: bool = False  # reachable from other machines
    legacy_origins: tuple[str, ...] = ("http://localhost:4200",)  # CORS origins that may read the legacy paths
    body: int = MIB  # bytes of a request body, except uploads
    upload: int = 2048 * MIB  # bytes of an uploaded archive
    upload_files: int = 20_000  # images in an archive
    image: int = 32 * MIB  # bytes of one image
    images: int = 64  # images in one prediction request
    pixels: int = 50_000_000  # pixels of one image
    request_pixels: int = 400_000_000  # pixels of all images in one prediction request
    predict_rate: int = 120  # images per minute and client
    failures: int = 10  # wrong tokens per minute and client
    streams: int = 64  # simultaneous event streams

    @property
    def predict_body(self) -> int:
        """Bytes of a prediction request's body."""
        return min(self.images * self.image, 256 * MIB)


def policy_for(host: str, token: str = "", names: tuple[str, ...] = (), **limits: Any) -> Policy:
    """Return the policy of a server that listens on ``host`` and also answers to ``names``.

    A server that other machines can reach always has a token: the given one, or a random one.
    """
    if token and len(token) < MIN_TOKEN:
        raise BadConfig(
            f"a token of {len(token)} characters can be guessed. Give at least {MIN_TOKEN}, or none for a random one."
        )
    if is_local(host):
        return Policy(token=token, hosts=LOOPBACK | {n.lower() for n in names}, **limits)
    own = {socket.gethostname().lower(), socket.getfqdn().lower(), host.lower()}
    return Policy(
        token=token or secrets.token_urlsafe(32), hosts=LOOPBACK | own | {n.lower() for n in names}, open=True, **limits
    )


def is_local(host: str) -> bool:
    """Return whether ``host`` is a loopback address."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def is_address(host: str) -> bool:
    """Return whether ``host`` is an IP address. A host name could be made to resolve to any address (DNS rebinding)."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
