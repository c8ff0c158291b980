import pytest


@pytest.fixture
def kept(iadbe, workspace, elsewhere):
    (elsewhere / "grid.yaml").write_text(f"detectors: [dfm]\ndata: ['{workspace.mvtec}']\nprotocol: uniform@64\n")
    how = ("--store", "runs", "--keep-maps", "--features", "off", "--device", "cpu")
    assert iadbe("benchmark", "grid.yaml", *how).code == 0
    (folder,) = (elsewhere / "runs").glob("dfm-*")
    return folder.name.rpartition("-")[2][:8]


def test_one_run_in_all_dialects(iadbe, kept, workspace):
    output = iadbe("metrics", "explain", kept, "--data.root", workspace.mvtec)
    assert output.code == 0
    lines = output.out.splitlines()
    assert lines[0].startswith("dfm on mvtec_ad, nut, 6 test images")
    exact, as_run = (next(line.split() for line in lines if line.startswith(head)) for head in ("exact", "as the run"))
    assert float(exact[1]) == pytest.approx(float(as_run[4]), abs=2e-3)
    assert any(line.startswith("rd4ad") for line in lines)
    assert any(line.startswith("touched") for line in lines)
    assert "| exact" in iadbe("metrics", "explain", kept, "--data.root", workspace.mvtec, "--format", "markdown").out


def test_what_metrics_there_are(iadbe):
    assert "  .rd4ad " in iadbe("metrics").out
    output = iadbe("metrics", "escape")
    assert ".held_out" in output.out
    assert "aupro" not in output.out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["explain"], 2, "takes one run"),
        (["explain", "a", "b"], 2, "takes one run"),
        (["aupor"], 1, "Did you mean aupro"),
        (["--store", "x"], 2, "is for `iadbe metrics explain RUN`"),
        (["explain", "x", "--format", "xml"], 2, "--format is one of"),
        (["explain", "x"], 1, "there is no folder"),
        (["--stroe", "x"], 2, "Did you mean --store"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, arguments, code, sentence):
    output = iadbe("metrics", *arguments)
    assert output.code == code
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_without_maps_it_says_how_to_get_them(iadbe, workspace):
    output = iadbe("metrics", "explain", workspace.padim.name.rpartition("-")[2], "--store", workspace.store)
    assert output.code == 1
    assert "kept no maps" in output.err
    assert "--keep-maps" in output.err
