import hashlib
import json
import shutil
import sys
import zipfile

import pytest

from iadbe.cli import data
from iadbe.files import download
from iadbe.progress import report


def test_what_was_found_is_reported(iadbe, workspace):
    output = iadbe("data", "check", workspace.mvtec)
    assert output.code == 0
    assert "nut: 8 train (8 good); 6 test (3 good, 3 spot)" in output.out
    assert "looks like the MVTec AD layout" in output.out
    assert output.err == ""


def test_a_broken_image_is_an_error(iadbe, workspace, elsewhere):
    shutil.copytree(workspace.mvtec, elsewhere / "copy")
    (elsewhere / "copy/nut/train/good/1.png").write_bytes(b"")
    output = iadbe("data", "check", "copy", "--json")
    assert output.code == 1
    assert any("1.png" in p["sentence"] for p in json.loads(output.out)["problems"])


def test_a_dataset_can_be_named_with_its_parameters(iadbe, workspace):
    output = iadbe(
        "data", "check", "folder", "--data.root", workspace.parts, "--data.abnormal_dir", "scratch", "--json"
    )
    assert json.loads(output.out)["counts"]["parts"]["test"]["scratch"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["check", "./none"], 1, "there is no folder"),
        (["check"], 2, "which data?"),
        ([], 2, "iadbe data check FOLDER"),
        (["chek", "x"], 2, "Did you mean check"),
        (["get"], 2, "It can fetch btad, kolektor_sdd, "),
        (["get", "mpdd", "mvtec_ad"], 2, "takes one name"),
        (["get", "mvtec"], 1, "Did you mean mvtec"),
        (["get", "mpdd", "--too", "x"], 2, "Did you mean --to"),
        (["get", "mpdd"], 1, "Fetch the archive through the link on https://github.com/stepanje/MPDD"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, arguments, code, sentence):
    output = iadbe("data", *arguments)
    assert output.code == code
    assert sentence in output.err


@pytest.fixture
def archive(workspace, elsewhere, monkeypatch):
    """An archive that a user has put where `iadbe data get mvtec_ad --to here` looks for it."""
    (elsewhere / "here").mkdir()
    with zipfile.ZipFile(elsewhere / "here/a.zip", "w") as zipped:
        for path in sorted(workspace.mvtec.rglob("*.png")):
            zipped.write(path, path.relative_to(workspace.mvtec.parent))
    digest = hashlib.sha256((elsewhere / "here/a.zip").read_bytes()).hexdigest()
    found = download.Archive("http://127.0.0.1:9/a.zip", "a.zip", "sha256", digest)
    monkeypatch.setattr(download, "archives", lambda card: (found,))
    return elsewhere / "here"


def test_an_archive_put_there_by_hand_is_unpacked_and_read(iadbe, archive):
    output = iadbe("data", "get", "mvtec_ad", "--to", "here")
    assert output.code == 0, output.err
    assert "licence: CC BY-NC-SA 4.0" in output.out
    assert output.out.endswith("Next: iadbe data check mvtec_ad --data.root here/mvtec\n")
    assert iadbe("data", "check", "mvtec_ad", "--data.root", "here/mvtec").code == 0
    assert "already" in iadbe("data", "get", "mvtec_ad", "--to", "here").out


def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(iadbe, archive, elsewhere, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    output = iadbe("data", "get", "mvtec_ad")
    assert output.code == 1
    assert "http://127.0.0.1:9/a.zip cannot be reached" in output.err
    assert "Fetch a.zip by hand, put it into datasets/mvtec_ad, and run the same command again" in output.err
    assert "Traceback" not in output.err


def test_help_tells_of_both(iadbe):
    for arguments in (["--help"], ["get", "--help"]):
        output = iadbe("data", *arguments)
        assert output.code == 0
        assert "iadbe data get NAME [--to DIR]" in output.out
    assert "--json" in iadbe("data", "check", "--help").out


def test_a_bar_follows_each_phase_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with data._progress_bar():
        for phase in ("download", "unpack"):
            for done in (10**6, 3 * 10**6):
                report(phase, done, 3 * 10**6)
    shown = capsys.readouterr().err
    assert "unpack" in shown
    assert "3.0/3.0 MB" in shown
