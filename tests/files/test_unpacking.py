import io
import stat
import tarfile
import zipfile

import pytest

from iadbe.errors import BadConfig, BadData
from iadbe.files import unpacking
from iadbe.files.unpacking import unpack
from iadbe.progress import listening


def tarred(path, entries, mode="w:xz"):
    """Write a tar; an entry is (name, bytes) or a TarInfo."""
    with tarfile.open(path, mode) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return path


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


PLAIN = [("a/good/1.png", b"one" * 999), ("./a/good/2.png", b"two"), ("a/b.txt", b"")]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_what_went_in_comes_out(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    zipped(path, PLAIN) if ending == "zip" else tarred(path, PLAIN, f"w:{ending[4:]}")
    told = []
    with listening(told.append):
        unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a/good/1.png": b"one" * 999, "a/good/2.png": b"two", "a/b.txt": b""}
    assert not list((tmp_path / "out").glob(".*"))
    assert {t.phase for t in told} == {"unpack"}
    assert all(0 < t.done <= t.total for t in told)


def test_what_is_there_is_kept_and_what_has_its_name_replaced(tmp_path):
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "out/a/b.txt").write_bytes(b"old")
    (tmp_path / "out/a/mine.txt").write_bytes(b"mine")
    unpack(tarred(tmp_path / "x.tar.xz", PLAIN), tmp_path / "out")
    assert contents(tmp_path / "out")["a/b.txt"] == b""
    assert contents(tmp_path / "out")["a/mine.txt"] == b"mine"


NAMES = ["/etc/evil", "../evil", "a/../../evil", "..", "C:/evil", "a\\..\\..\\evil", "a/..\\evil"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_outside_the_folder_is_refused_and_nothing_is_kept(tmp_path, name, kind):
    entries = [("good.txt", b"1"), (name, b"evil")]
    path = tarred(tmp_path / "x.tar", entries, "w:") if kind == "tar" else zipped(tmp_path / "x.zip", entries)
    with pytest.raises(BadData, match="lies outside the folder"):
        unpack(path, tmp_path / "in/out")
    assert contents(tmp_path / "in") == {}
    assert set(contents(tmp_path)) == {path.name}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "../secret"])
def test_a_link_out_is_refused(tmp_path, kind, target):
    (tmp_path / "secret").write_text("secret")
    path = tarred(tmp_path / "x.tar", [special("link", kind, target), ("link/x", b"through")], "w:")
    with pytest.raises(BadData, match="lies outside"):
        unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_link_that_stays_inside_becomes_a_copy(tmp_path):
    entries = [("a/x.txt", b"x"), special("b/soft", tarfile.SYMTYPE, "../a/x.txt")]
    entries += [special("b/hard", tarfile.LNKTYPE, "a/x.txt")]
    unpack(tarred(tmp_path / "x.tar", entries, "w:"), tmp_path / "out")
    assert contents(tmp_path / "out") == {"a/x.txt": b"x", "b/soft": b"x", "b/hard": b"x"}
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize("target", ["nowhere", "a"])
def test_a_link_to_no_file_is_refused(tmp_path, target):
    path = tarred(tmp_path / "x.tar", [("a/x", b""), special("link", tarfile.SYMTYPE, target)], "w:")
    with pytest.raises(BadData, match="no file in it"):
        unpack(path, tmp_path / "out")


def test_devices_and_links_in_a_zip_are_refused(tmp_path):
    with pytest.raises(BadData, match="neither a file, a folder nor a link"):
        unpack(tarred(tmp_path / "x.tar", [special("dev", tarfile.CHRTYPE)], "w:"), tmp_path / "out")
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(BadData, match="neither a file nor a folder"):
        unpack(zipped(tmp_path / "x.zip", [(entry, "/etc/passwd")]), tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip", "links"])
def test_a_bomb_is_stopped(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED", 10**6)
    bomb = bytes(3 * 10**6)
    if kind == "zip":
        path = zipped(tmp_path / "x", [(f"{i}", bomb) for i in range(2)])
    elif kind == "tar":
        path = tarred(tmp_path / "x", [("0", bomb)])
    else:  # a small file, copied many times
        links = [special(f"l{i}", tarfile.LNKTYPE, "0") for i in range(400)]
        path = tarred(tmp_path / "x", [("0", bomb[: 10**5]), *links])
    with pytest.raises(BadData, match="more than 100 times its size"):
        unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_too_many_files_and_too_little_disk_space_are_errors(tmp_path, monkeypatch):
    path = tarred(tmp_path / "x", [(f"{i}", b"") for i in range(5)])
    monkeypatch.setattr(unpacking, "MAX_FILES", 4)
    with pytest.raises(BadData, match="more than 4 files"):
        unpack(path, tmp_path / "out")
    monkeypatch.setattr(unpacking, "RESERVED_DISK", 2**62)
    with pytest.raises(BadConfig, match="GB of free disk space"):
        unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_long_name_cannot_fill_the_memory(tmp_path):
    path = tarred(tmp_path / "x", [special("x" * (2**20 + 1), tarfile.REGTYPE)], "w:gz")
    with pytest.raises(BadData, match="a header of"):
        unpack(path, tmp_path / "out")


def test_a_damaged_or_foreign_file_is_an_error(tmp_path):
    noise = tmp_path / "noise"
    noise.write_bytes(b"no archive" * 99)
    whole = tarred(tmp_path / "x.tar.gz", [("a", bytes(range(256)) * 400)], "w:gz")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    broken = zipped(tmp_path / "x.zip", [("a", bytes(range(256)) * 40)])
    broken.write_bytes(broken.read_bytes().replace(b"PK\x03\x04", b"PK\x03\x05", 1))
    for path in (noise, cut, broken):
        with pytest.raises(BadData, match="is not a zip or tar archive, or is truncated"):
            unpack(path, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_password_is_asked_for(tmp_path):
    path = zipped(tmp_path / "x.zip", [("a", b"1")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the table at the end
    path.write_bytes(data)
    with pytest.raises(BadData, match="encrypted"):
        unpack(path, tmp_path / "out")


def test_a_file_and_a_folder_of_one_name_are_reported(tmp_path):
    with pytest.raises(BadData, match="one name"):
        unpack(tarred(tmp_path / "x", [("a", b"1"), ("a/b", b"2")]), tmp_path / "out")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "é" * 150, "d/" * 2000 + "a.png", "a/" + "y" * 201])
def test_names_that_no_disk_keeps_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(BadData, match="longer than"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
