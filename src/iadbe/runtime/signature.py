"""Signatures of exported files: who has written a file, and that no bit of it has changed since.

Ed25519 (RFC 8032) by the package ``cryptography``, over a fixed prefix and the SHA-256 of each file's content. The
signature is text in a file of its own beside the exported one, ``NAME.sig``. Keys are PEM files, which OpenSSL makes::

    openssl genpkey -algorithm ed25519 -out private.pem
    openssl pkey -in private.pem -pubout -out public.pem
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadbe import system
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.runtime.file_parts import sha256_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ENDING = ".sig"
PREFIX = b"iadbe exported file 1\n"  # a signature of something else can never pass for one of these
MAX_BYTES = 4096  # of a key's or signature's file


def sign(files: Sequence[Path], key: Path) -> Path:
    """Sign an exported file, which may be of several parts, with a private key; return the signature's file.

    Raises :class:`BadConfig` for a key that cannot be used, :class:`Missing` without the package.
    """
    signature = private_key(key).sign(_message(files))
    with system.replacing(_beside(files[0])) as part:
        part.write_text(base64.b64encode(signature).decode() + "\n", encoding="ascii")
    return _beside(files[0])


def verify(files: Sequence[Path], key: Path) -> None:
    """Check an exported file's signature with a public key.

    Raises :class:`BadData` where the signature is missing, damaged, of another key, or of another content.
    """
    from cryptography.exceptions import InvalidSignature

    public = public_key(key)
    file = _beside(files[0])
    if not file.is_file():
        raise BadData(f"{files[0].name} is not signed: there is no {file.name} beside it.")
    try:
        signature = base64.b64decode(_short(file), validate=False)
        public.verify(signature, _message(files))
    except (InvalidSignature, binascii.Error) as error:
        raise BadData(
            f"{files[0].name} is not what was signed with this key: it has changed, or another key has signed it."
        ) from error


def private_key(file: Path) -> Ed25519PrivateKey:
    """Read a private key. Raises :class:`BadConfig`, :class:`Missing`."""
    from_pem, kind = _library("load_pem_private_key", "Ed25519PrivateKey")
    return _key(file, lambda data: from_pem(data, None), kind, "a private")


def public_key(file: Path) -> Ed25519PublicKey:
    """Read a public key. Raises :class:`BadConfig`, :class:`Missing`."""
    from_pem, kind = _library("load_pem_public_key", "Ed25519PublicKey")
    return _key(file, from_pem, kind, "a public")


def _library(loader: str, kind: str) -> tuple[Any, Any]:
    if find_spec("cryptography") is None:
        raise Missing("signatures need the package cryptography. Install it with: pip install 'iadbe[sign]'")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return getattr(serialization, loader), getattr(ed25519, kind)


def _key(file: Path, from_pem: Any, kind: Any, which: str) -> Any:
    how = f"it is not {which} Ed25519 key as a PEM file without a password"
    try:
        found = from_pem(_short(file))
    except OSError as error:
        raise BadConfig(f"{file} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # the library raises several kinds for what is no key
        raise BadConfig(f"{file} cannot be used: {how}.") from error
    if not isinstance(found, kind):
        raise BadConfig(f"{file} cannot be used: {how}.")
    return found


def _message(files: Sequence[Path]) -> bytes:
    """Return what is signed: the prefix, and a digest and the ending of each file."""
    return PREFIX + b"".join(f"{sha256_of(file)} {file.suffix}\n".encode() for file in files)


def _beside(file: Path) -> Path:
    return file.with_name(file.name + ENDING)


def _short(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES)
