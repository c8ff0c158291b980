"""Session cookies: signed with the token, so that they outlive the server, and revoked at logout.

A cookie is ``EXPIRES.ID.SIGNATURE``. The ids of revoked sessions are kept in a file of the store until they expire.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path

from iadbe import system
from iadbe.web.number_ranges import whole_number
from iadbe.web.policy import Policy

SESSION_SECONDS = 7 * 24 * 3600  # lifetime of a login


class Sessions:
    """Issues, checks and revokes session cookies. Thread-safe."""

    def __init__(self, policy: Policy, file: Path) -> None:
        self._key = hashlib.sha256(b"iadbe session " + policy.token.encode()).digest() if policy.token else b""
        self._file = file
        self._lock = threading.Lock()
        self._stamp = (0, 0)  # of the file as it was read: time and size
        self._revoked: dict[str, int] = {}  # id -> expiry, seconds since 1970

    def create(self, now: float | None = None) -> str:
        """Return a new cookie."""
        head = f"{int((time.time() if now is None else now) + SESSION_SECONDS)}.{secrets.token_hex(16)}"
        return f"{head}.{self._sign(head)}"

    def is_valid(self, cookie: str) -> bool:
        """Say whether a cookie is genuine, has not expired and was not revoked."""
        expires, session = self._read(cookie)
        if not session or expires <= time.time():
            return False
        with self._lock:
            self._refresh()
            return session not in self._revoked

    def revoke(self, cookie: str) -> None:
        """End a session. On a read-only store it ends for the lifetime of this server."""
        expires, session = self._read(cookie)
        if not session:
            return
        with self._lock:
            self._refresh()
            self._revoked = {k: v for k, v in self._revoked.items() if v > time.time()} | {session: expires}
            part = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}.part")
            with suppress(OSError):
                part.write_text(json.dumps(self._revoked), encoding="utf-8")
                system.replace(part, self._file)
                self._stamp = self._stamp_now()

    def _read(self, cookie: str) -> tuple[int, str]:
        """Return (expiry, id) of a genuine cookie, else (0, "")."""
        head, _, signature = cookie.rpartition(".")
        expires, _, session = head.partition(".")
        number = whole_number(expires)
        is_genuine = hmac.compare_digest(signature.encode(errors="replace"), self._sign(head).encode())
        return (number, session) if self._key and is_genuine and number is not None else (0, "")

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(errors="replace"), hashlib.sha256).hexdigest()

    def _refresh(self) -> None:
        """Read the file if another server on the same store has changed it."""
        with suppress(OSError, ValueError, AttributeError, TypeError):  # the file may be damaged
            if (stamp := self._stamp_now()) != self._stamp:
                found = json.loads(self._file.read_text(encoding="utf-8"))
                self._revoked |= {str(k): int(v) for k, v in found.items()}
                self._stamp = stamp

    def _stamp_now(self) -> tuple[int, int]:
        status = self._file.stat()
        return status.st_mtime_ns, status.st_size  # some disks tell times to two seconds only
