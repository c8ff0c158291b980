"""Signatures of exported files."""

import pytest

from iadbe.errors import BadConfig, BadData, Missing
from iadbe.runtime import signature

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="cryptography is missing")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")


def pair(folder, name, password=None):
    """Write a pair of keys; return their files."""
    key = ed25519.Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, pkcs8, encryption))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def files(tmp_path):
    """An exported file of two parts."""
    found = [tmp_path / "model.xml", tmp_path / "model.bin"]
    for number, file in enumerate(found):
        file.write_bytes(bytes([number]) * 1000)
    return found


def test_a_signed_file_is_recognised_and_a_changed_bit_too(tmp_path, files):
    private, public = pair(tmp_path, "ours")
    assert signature.sign(files, private).name == "model.xml.sig"
    signature.verify(files, public)
    for file in files:
        content = bytearray(file.read_bytes())
        content[500] ^= 1
        file.write_bytes(content)
        with pytest.raises(BadData, match="it has changed, or another key"):
            signature.verify(files, public)
        content[500] ^= 1
        file.write_bytes(content)
    with pytest.raises(BadData, match="it has changed"):
        signature.verify(files[::-1], pair_and_copy(files, public))


def pair_and_copy(files, public):
    """Let the signature belong to the parts in another order."""
    files[1].with_name(files[1].name + ".sig").write_bytes(files[0].with_name(files[0].name + ".sig").read_bytes())
    return public


def test_other_keys_and_no_signatures_are_refused(tmp_path, files):
    private, public = pair(tmp_path, "ours")
    with pytest.raises(BadData, match="is not signed"):
        signature.verify(files, public)
    signature.sign(files, private)
    with pytest.raises(BadData, match="another key"):
        signature.verify(files, pair(tmp_path, "theirs")[1])
    files[0].with_name("model.xml.sig").write_bytes(b"\xff not base64 \x00")
    with pytest.raises(BadData, match="is not what was signed"):
        signature.verify(files, public)


def test_what_is_no_key_is_one_sentence(tmp_path, files):
    private, public = pair(tmp_path, "ours")
    locked = pair(tmp_path, "locked", b"secret")[0]
    (tmp_path / "text").write_text("no key")
    for file in (public, locked, tmp_path / "text"):
        with pytest.raises(BadConfig, match="not a private Ed25519 key as a PEM file without a password"):
            signature.sign(files, file)
    with pytest.raises(BadConfig, match="not a public Ed25519 key"):
        signature.verify(files, private)
    with pytest.raises(BadConfig, match="cannot be read"):
        signature.sign(files, tmp_path / "nowhere.pem")


def test_without_the_package_the_way_is_named(tmp_path, files, monkeypatch):
    monkeypatch.setattr(signature, "find_spec", lambda name: None)
    with pytest.raises(Missing, match="iadbe\\[sign\\]"):
        signature.sign(files, tmp_path / "key.pem")
