from iadbe.cli import demo
from iadbe.metric import parse
from iadbe.running import plan


def test_the_grid_can_run_offline():
    planned = plan.expand(demo.GRID)
    assert len(planned.runs) == 20
    assert planned.skipped == ()
    assert all(s.detector_params.get("weights", "auto") == "auto" for s in planned.runs)
    assert all(parse(name) for name in demo.COLUMNS)


def test_it_ranks_reports_and_goes_on_where_it_stopped(iadbe, workspace, elsewhere, monkeypatch):
    data = [{"name": "mvtec_ad", "root": str(workspace.mvtec)}]
    few = {"detectors": [{"name": "padim", "dims": 8}], "data": data, "protocol": "uniform@64"}
    monkeypatch.setattr(demo, "GRID", few)
    output = iadbe("demo", "--out", "here")
    assert output.code == 0
    assert "1 run: 1 detector " in output.err
    assert "pixel AUPRO" in output.out
    assert "report: here/report.html" in output.out
    assert (elsewhere / "here/report.html").is_file()
    monkeypatch.setattr(demo, "GRID", {**few, "seeds": [0, 1]})
    output = iadbe("demo", "--out", "here")
    assert "1 of 2 done before" in output.err
    assert output.err.count("[2/2]") == 1
