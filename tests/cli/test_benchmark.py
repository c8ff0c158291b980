import pytest

from iadbe.running.store import Store

GRID = """
detectors: [{{name: padim, dims: 8, weights: none}}, {{name: dfm, layer: 99}}]
data: [{{name: mvtec_ad, root: '{root}'}}]
settings: [vanilla, {{name: few_shot, k: 500}}]
protocol: uniform@64
"""
QUICK = ("--store", "s", "--features", "off", "--device", "cpu")


@pytest.fixture
def grid(workspace, elsewhere):
    file = elsewhere / "grid.yaml"
    file.write_text(GRID.format(root=workspace.mvtec))
    return file


def test_the_plan_is_printed_first_and_nothing_runs(iadbe, grid, elsewhere):
    output = iadbe("benchmark", grid, "--dry-run", *QUICK)
    assert output.code == 0
    assert output.err.startswith("2 runs, 0 of them done, 2 skipped\n")
    assert "padim on mvtec_ad nut, few_shot; dfm on mvtec_ad nut, few_shot: few_shot.k is 500" in output.err
    assert not (elsewhere / "s").exists()


def test_a_failure_is_reported_other_runs_are_kept_and_nothing_runs_twice(iadbe, grid, elsewhere, monkeypatch):
    output = iadbe("benchmark", grid, *QUICK)
    assert output.code == 1
    assert "layers 0 to 4, not [99]" in output.out
    assert "dfm(layer=99) on mvtec nut, seed 0, log: s/.logs/dfm" in output.out
    assert "image AUROC" in output.out
    assert (elsewhere / "s/report.html").is_file()
    times = {f: f.stat().st_mtime_ns for f in (elsewhere / "s").glob("*/result.json")}
    assert len(times) == 2
    output = iadbe("benchmark", grid, "--report", "r.html", *QUICK)
    assert output.err.startswith("2 runs, 2 of them done (1 failed; --retry runs them again), 2 skipped\n")
    assert "report: r.html" in output.out
    assert times == {f: f.stat().st_mtime_ns for f in (elsewhere / "s").glob("*/result.json")}
    (elsewhere / "s/report.html").unlink()
    monkeypatch.setattr(Store, "is_read_only", True)
    output = iadbe("benchmark", grid, *QUICK)
    assert "s is read-only. Name a file with --report FILE." in output.err
    assert "image AUROC" in output.out
    assert not (elsewhere / "s/report.html").exists()


def test_options_take_the_place_of_the_files_axes(iadbe, grid):
    output = iadbe(
        "benchmark", grid, "--dry-run", "--detectors", "padim,dfkde", "--seeds", "0,1,2", "--settings", "vanilla"
    )
    assert output.err.startswith("6 runs, 0 of them done, 0 skipped\n")
    output = iadbe("benchmark", "--detectors", "padim", "--data", "toy", "--dry-run")
    assert output.err.startswith("4 runs")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which grid?"),
        (["none.yaml"], 1, "there is no grid file"),
        (["--detectors", "padm", "--data", "toy"], 1, "Did you mean padim"),
        (["--detectors", "padim", "--data", "toy", "--seeds", "0,x"], 1, "a seed is a whole number, not 'x'"),
        (["--detectors", "padim"], 1, "the grid needs data"),
        (
            ["--detectors", "padim", "--detector.dims", "3"],
            2,
            "A grid's file has it: detectors: [{name: NAME, dims: VALUE}]",
        ),
        (["--data", "mvtec_ad", "--data.category", "x"], 2, "data: [{name: NAME, categories: [A, B]}]"),
        (["--data", "mvtec_ad", "--categories", "textures"], 2, "data: [{name: NAME, categories: [A, B]}]"),
        (["--detectors", "padim", "--data", "toy", "--protocol", "papr"], 2, "there is no protocol 'papr'"),
        (["--detectors", "padim", "--data", "toy", "--scheduler", "tcp://x:1"], 1, "is for --executor dask"),
        (["--detectors", "padim", "--data", "toy", "--executor", "dusk"], 1, "Did you mean dask"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, arguments, code, sentence):
    output = iadbe("benchmark", *arguments)
    assert output.code == code
    assert sentence in output.err
    assert "Traceback" not in output.err
