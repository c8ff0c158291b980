import json
import shutil

from iadbe.cli import main


def test_what_was_found_is_said(plates, capsys):
    assert main(["data", "check", str(plates)]) == 0
    assert "square" in capsys.readouterr().out


def test_a_broken_picture_is_an_error(plates, tmp_path, capsys):
    shutil.copytree(plates, tmp_path / "copy")
    (tmp_path / "copy/plate/train/good/001.png").write_bytes(b"")
    assert main(["data", "check", str(tmp_path / "copy"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert any("001.png" in p["sentence"] for p in report["problems"])


def test_no_folder_is_one_sentence(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "none")]) == 1
    assert "there is no folder" in capsys.readouterr().err
