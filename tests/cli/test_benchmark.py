from iadbe.cli import main

GRID = "detectors: [{{name: padim, dims: 8}}, dfm]\ndata: [{{name: mvtec_ad, root: {root}}}]\nprotocol: uniform@64\n"


def test_the_plan_the_runs_the_report_and_nothing_twice(plates, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(GRID.format(root=plates))
    asked = ["benchmark", str(tmp_path / "grid.yaml"), "--store", str(tmp_path / "s"), "--features", "off"]
    assert main([*asked, "--dry-run"]) == 0
    assert "2 runs" in "".join(capsys.readouterr())
    assert not (tmp_path / "s").exists()
    assert main(asked) == 0
    said = capsys.readouterr()
    assert "padim" in said.out
    assert (tmp_path / "s/report.html").is_file()
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "s").glob("*/result.json")}
    assert len(times) == 2
    assert main(asked) == 0
    assert times == {f: f.stat().st_mtime_ns for f in (tmp_path / "s").glob("*/result.json")}


def test_a_failed_run_is_told_and_the_others_are_kept(plates, tmp_path, capsys):
    text = GRID.format(root=plates).replace("dfm", "{name: dfm, layer: 99}")
    (tmp_path / "grid.yaml").write_text(text)
    assert main(["benchmark", str(tmp_path / "grid.yaml"), "--store", str(tmp_path / "s"), "--features", "off"]) == 1
    said = "".join(capsys.readouterr())
    assert "layers 0 to 4" in said
    assert ".log" in said


def test_a_grid_that_is_none_is_one_sentence(tmp_path, capsys):
    assert main(["benchmark", str(tmp_path / "none.yaml")]) == 1
    assert "there is no grid file" in capsys.readouterr().err
    assert main(["benchmark"]) == 2
