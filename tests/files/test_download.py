import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dataset_trees import mvtec_ad
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files import download
from iadbe.files.download import Archive, fetch
from iadbe.progress import listening
from iadbe.registry import card

DATA = bytes(range(256)) * 4000  # 1 MB


class Server:
    """A server of one file, with faults to choose, that notes what it was asked."""

    def __init__(self):
        self.data, self.ranges, self.etag, self.breaks = DATA, True, '"v1"', []
        self.status, self.length, self.type, self.asked = 200, True, "application/x-tar", []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data.tar"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, handler):
        wanted = handler.headers.get("Range", "")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0) if self.ranges else 0
        if handler.headers.get("If-Range", self.etag) != self.etag:
            start = 0
        if self.status != 200:
            handler.send_error(self.status)
            return
        if start and start >= len(self.data):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.data)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        if self.length:
            handler.send_header("Content-Length", str(len(self.data) - start))
        handler.send_header("Content-Type", self.type)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        end = self.breaks.pop(0) if self.breaks else len(self.data)
        handler.wfile.write(self.data[start:end])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def archive(server, data=DATA, algorithm="sha256", file="data.tar"):
    return Archive(server.url, file, algorithm, hashlib.new(algorithm, data).hexdigest())


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_downloaded_whole_and_checked(tmp_path, server):
    said, told = [], []
    with listening(told.append):
        path = fetch(archive(server, algorithm="md5"), tmp_path / "new", said.append)
    assert path.read_bytes() == DATA
    assert names(tmp_path / "new") == ["data.tar"]
    assert said == [f"fetching data.tar, 1 MB, from {server.url}"]
    assert {t.phase for t in told} == {"download", "check"}
    assert max(t.done for t in told) == len(DATA) == told[0].total


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_again(tmp_path, server, ranges):
    server.ranges, server.breaks = ranges, [300_000, 300_001, 900_000] if ranges else [300_000]
    assert fetch(archive(server), tmp_path, str).read_bytes() == DATA
    expected = ["", "bytes=300000-", "bytes=300001-", "bytes=900000-"]
    assert server.asked == (expected if ranges else expected[:2])


def test_the_next_call_goes_on_where_the_last_was_given_up(tmp_path, server):
    server.breaks = [400_000] * 99
    with pytest.raises(Missing, match=r"400 KB of it are kept: the same command goes on from there\. Or fetch data"):
        fetch(archive(server), tmp_path, str)
    assert names(tmp_path) == ["data.tar.part", "data.tar.part.version"]
    server.breaks, server.asked = [], []
    said = []
    assert fetch(archive(server), tmp_path, said.append).read_bytes() == DATA
    assert server.asked == ["bytes=400000-"]
    assert "going on at 400 KB" in said[0]
    assert names(tmp_path) == ["data.tar"]


@pytest.mark.parametrize("new", [DATA[::-1], DATA[:-200_000:-1]])
def test_another_version_of_the_file_is_not_appended(tmp_path, server, new):
    server.breaks = [400_000] * 99
    with pytest.raises(Missing):
        fetch(archive(server), tmp_path, str)
    server.breaks, server.data, server.etag = [], new, '"v2"'
    server.length = len(new) == len(DATA)
    assert fetch(archive(server, new), tmp_path, str).read_bytes() == new


def test_a_part_that_is_already_all_of_it_is_used(tmp_path, server):
    (tmp_path / "data.tar.part").write_bytes(DATA)
    assert fetch(archive(server), tmp_path, str).read_bytes() == DATA
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(tmp_path, server):
    (tmp_path / "data.tar.part").write_bytes(DATA + b"more")
    assert fetch(archive(server), tmp_path, str).read_bytes() == DATA


def test_without_a_length_the_checksum_decides(tmp_path, server):
    server.length = False
    said = []
    assert fetch(archive(server), tmp_path, said.append).read_bytes() == DATA
    assert "unknown size" in said[0]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(tmp_path, server):
    with pytest.raises(BadData, match=r"has the sha256 .*, but that of the published file is"):
        fetch(archive(server, b"other"), tmp_path, str)
    assert names(tmp_path) == []


def test_that_no_checksum_is_known_is_reported(tmp_path, server):
    said = []
    fetch(Archive(server.url, "data.tar"), tmp_path, said.append)
    assert said[-1] == "no checksum of data.tar is known, so it is not checked"


def test_a_file_fetched_by_hand_is_checked_and_used(tmp_path, server):
    (tmp_path / "data.tar").write_bytes(DATA)
    assert fetch(archive(server), tmp_path, str).read_bytes() == DATA
    assert server.asked == []
    (tmp_path / "data.tar").write_bytes(b"another")
    with pytest.raises(BadData, match="damaged or another file"):
        fetch(archive(server), tmp_path, str)
    assert names(tmp_path) == ["data.tar"]  # what is the user's is not removed


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 5)])
def test_a_server_that_refuses_is_reported_with_what_to_do(tmp_path, server, status, tries):
    server.status = status
    with pytest.raises(Missing, match=r"Fetch data\.tar by hand, put it into .*run the same command again"):
        fetch(archive(server), tmp_path, str)
    assert len(server.asked) == tries


def test_a_web_page_instead_of_the_file_is_an_error(tmp_path, server):
    server.type = "text/html; charset=utf-8"
    with pytest.raises(Missing, match="sends a web page instead of a file"):
        fetch(archive(server), tmp_path, str)
    assert names(tmp_path) == []


def test_without_a_network_the_advice_comes_at_once(tmp_path, server):
    server.http.server_close()
    nobody = Archive("http://127.0.0.1:9/data.tar", "data.tar")
    with pytest.raises(Missing, match=r"cannot be reached .* Fetch data\.tar by hand"):
        fetch(nobody, tmp_path, str)


def test_too_little_disk_space_is_an_error_before_the_download(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(BadConfig, match=r"too little free disk space for 1 MB"):
        fetch(archive(server), tmp_path, str)
    assert not (tmp_path / "data.tar.part").exists()


def test_only_web_addresses_are_opened_and_encryption_is_kept(tmp_path):
    with pytest.raises(BadConfig, match="not a web address"):
        fetch(Archive("file:///etc/passwd", "x"), tmp_path, str)
    request = download.urllib.request.Request("https://a.example/x")
    with pytest.raises(Missing, match="not encrypted"):
        download._SafeRedirects().redirect_request(request, None, 302, "Found", {}, "http://a.example/x")


@pytest.fixture
def published(tmp_path, server, monkeypatch):
    """A server of the tiny MVTec AD of the fixtures, below a folder of its own, and the reader's facts about it."""
    mvtec_ad(tmp_path / "made/inner", ("bolt",))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        tar.add(tmp_path / "made/inner", "some_folder")
    server.data = packed.getvalue()
    monkeypatch.setattr(download, "archives", lambda card: (archive(server, server.data),))
    return server


def test_a_dataset_is_fetched_unpacked_and_found(tmp_path, published):
    said = []
    root = download.get("mvtec_ad", tmp_path / "out", said.append)
    assert root == tmp_path / "out/some_folder"
    assert said[0].startswith("MVTec AD, licence: CC BY-NC-SA 4.0. See https://www.mvtec.com")
    assert said[1].startswith("fetching data.tar, ")
    assert said[2:] == ["unpacking data.tar"]
    assert names(tmp_path / "out") == ["some_folder"]
    asked = len(published.asked)
    assert download.get("mvtec_ad", tmp_path / "out", said.append) == root
    assert "already" in said[-1]
    assert len(published.asked) == asked


def test_the_archive_is_kept_where_that_is_wanted(tmp_path, published):
    download.get("mvtec_ad", tmp_path / "out", str, keep=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/data.tar").write_bytes(published.data)
    download.get("mvtec_ad", tmp_path / "other", str)  # fetched by hand: never removed
    assert names(tmp_path / "out") == names(tmp_path / "other") == ["data.tar", "some_folder"]


def test_what_cannot_be_unpacked_is_fetched_again_next_time(tmp_path, published, monkeypatch):
    monkeypatch.setattr(download, "archives", lambda card: (Archive(published.url, "data.tar"),))
    whole, published.data = published.data, b"no archive"
    with pytest.raises(BadData, match="is not a zip or tar archive"):
        download.get("mvtec_ad", tmp_path / "out", str)
    assert names(tmp_path / "out") == []
    published.data = whole
    assert download.get("mvtec_ad", tmp_path / "out", str).name == "some_folder"


def test_an_archive_of_something_else_is_reported(tmp_path, published):
    with pytest.raises(BadData, match=r"is not mtd: looked for MT_Free/Imgs"):
        download.get("mtd", tmp_path / "out", str)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("real_iad", r"cannot be downloaded automatically \(licence: CC BY-NC-SA 4\.0\)\. Ask for access"),
        ("elpv", "pip install 'iadbe"),
        ("folder", "there is nothing to fetch for folder: it is your own folders"),
        ("toy", "it is rendered, not read"),
    ],
)
def test_what_cannot_be_downloaded_raises_instructions(tmp_path, name, said):
    with pytest.raises(Missing, match=said):
        download.get(name, tmp_path / "out", str)


def test_the_facts_of_a_card_become_archives():
    (found,) = download.archives(card("datasets", "mvtec_3d"))
    assert found.file == "mvtec_3d_anomaly_detection.tar.xz"
    assert (found.algorithm, len(found.digest)) == ("md5", 32)
    (found,) = download.archives(card("datasets", "kolektor_sdd2"))
    assert (found.file, found.algorithm, found.digest) == ("KolektorSDD2.zip", "", "")
