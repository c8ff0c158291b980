import csv
import io
import json

from iadbe.cli import main


def test_scores_as_json_lines_and_csv(model, plates, capsys):
    pictures = str(plates / "plate/test/square")
    assert main(["predict", str(model), pictures, "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4
    assert all(r["defective"] for r in rows)
    assert main(["predict", str(model), pictures, "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(r["score"]) for r in table] == [r["score"] for r in rows]


def test_a_run_is_known_by_the_beginning_of_its_id(model, store, plates, capsys):
    short = model.name.rpartition("-")[2][:6]
    picture = str(plates / "plate/test/good/000.png")
    assert main(["predict", short, picture, "--store", str(store), "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["defective"] is False


def test_pictures_are_written_apart_and_never_over_one_another(model, plates, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(model), str(plates / "plate/test"), "--out", str(out), "--pixel-threshold", "5"]) == 0
    for ending in ("heat", "overlay", "mask"):
        assert len(list(out.glob(f"*_{ending}.png"))) == 8


def test_one_bad_picture_does_not_stop_the_others(model, plates, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"nonsense")
    (tmp_path / "b.png").write_bytes((plates / "plate/test/good/000.png").read_bytes())
    assert main(["predict", str(model), str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "a.png" in said.out + said.err
    assert "b.png" in said.out


def test_the_earlier_tools_options_work(model, plates, capsys):
    picture = str(plates / "plate/test/square/000.png")
    asked = ["predict", "--model", "anomalib.models.Padim", "--data", picture, "--ckpt_path", str(model)]
    assert main(asked) == 0
    assert "000.png" in capsys.readouterr().out


def test_what_is_no_model_is_one_sentence(tmp_path, plates, capsys):
    picture = str(plates / "plate/test/good/000.png")
    assert main(["predict", str(tmp_path), picture]) == 1
    assert "not a model folder" in capsys.readouterr().err
    assert main(["predict", "model.ckpt", picture]) == 1
    assert "made by another tool" in capsys.readouterr().err
