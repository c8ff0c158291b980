from iadbe import plan
from iadbe.cli.demo import COLUMNS, GRID
from iadbe.metric import parse


def test_the_grid_can_run_offline():
    planned = plan.expand(GRID)
    assert len(planned.runs) == 20
    assert planned.skipped == ()
    assert all(s.detector_params.get("weights", "auto") == "auto" for s in planned.runs)
    assert all(parse(name) for name in COLUMNS)
