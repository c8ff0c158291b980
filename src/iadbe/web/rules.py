"""What a server allows: who may ask, from where, and how much. Set once when it starts."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass
from typing import Any

from iadbe.errors import BadConfig

MIB = 2**20
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
SHORTEST = 16  # characters of a token that somebody has chosen


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of one server."""

    token: str = ""  # empty: nobody is asked for one, which only a server that this machine alone reaches may do
    hosts: frozenset[str] = LOCAL  # names that the server answers to, beside addresses where ``open``
    open: bool = False  # other machines can reach it
    friends: tuple[str, ...] = ("http://localhost:4200",)  # origins that may read the old paths: the old front end
    body: int = MIB  # bytes of an ordinary request
    upload: int = 2048 * MIB  # bytes of an archive of images
    upload_files: int = 20_000
    image: int = 32 * MIB  # bytes of one image
    images: int = 64  # of one request
    pixels: int = 50_000_000  # of one image
    predict_rate: int = 120  # images a minute, for each client
    failures: int = 10  # wrong tokens a minute, for each client
    streams: int = 64  # of events, at a time

    @property
    def predict_body(self) -> int:
        """Bytes of one request to predict."""
        return min(self.images * self.image, 256 * MIB)


def rules_for(host: str, token: str = "", names: tuple[str, ...] = (), **limits: Any) -> Rules:
    """Return the rules of a server that listens on ``host`` and is also reached by ``names``.

    One that other machines reach has a token; where none is given, it is made.
    """
    if token and len(token) < SHORTEST:
        raise BadConfig(
            f"a token of {len(token)} characters can be guessed. Give at least {SHORTEST}, or none: one is made then."
        )
    if is_local(host):
        return Rules(token=token, hosts=LOCAL | {n.lower() for n in names}, **limits)
    own = {socket.gethostname().lower(), socket.getfqdn().lower(), host.lower()}
    return Rules(
        token=token or secrets.token_urlsafe(32), hosts=LOCAL | own | {n.lower() for n in names}, open=True, **limits
    )


def is_local(host: str) -> bool:
    """Say whether only this machine reaches what listens on ``host``."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def is_address(host: str) -> bool:
    """Say whether ``host`` is an address and not a name, which somebody could let point anywhere."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
