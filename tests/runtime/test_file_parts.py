"""The files that an exported model consists of."""

import hashlib
from pathlib import Path

from iadbe.runtime.file_parts import parts_of, sha256_of


def test_openvinos_pair_has_two_files():
    assert parts_of(Path("a.onnx")) == [Path("a.onnx")]
    assert parts_of(Path("a.xml")) == [Path("a.xml"), Path("a.bin")]


def test_the_digest_is_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"model")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"model").hexdigest()
