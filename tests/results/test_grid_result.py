import json
import sys

import pytest

from fake_results import result
from iadbe.errors import BadConfig, Missing
from iadbe.results.grid_result import GridResult

GRID = GridResult(
    (
        result("padim", values={"image_auroc": 0.75, "pixel_ap": 0.5}),
        result("patchcore", values={"image_auroc": 0.875, "pixel_ap": 0.25}),
        result("dfm", error="<b>no</b> memory\nmore"),
    ),
    skipped=("a: b",),
)


def test_tables_in_every_form():
    (table,) = GRID.tables(["image_auroc"])
    assert [row[0].text for row in table.rows][:2] == ["patchcore", "padim"]
    assert "patchcore" in GRID.table()
    assert json.loads(GRID.table(form="json"))[0]["rows"][0]["image_auroc"]["value"] == 0.875
    with pytest.raises(BadConfig, match="Did you mean markdown"):
        GRID.table(form="markdwn")


def test_rows_hold_every_run():
    first, _, failed = GRID.rows()
    assert (first["detector"], first["task"], first["image_auroc"], first["pixel_ap"]) == ("padim", "bottle", 0.75, 0.5)
    assert (first["latency_ms"], first["seconds"], first["error"]) == (10.0, 5.0, "")
    assert failed["error"].startswith("<b>no</b> memory")


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = GRID.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.set_index("detector").loc["patchcore", "image_auroc"] == 0.875


def test_without_pandas_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Missing, match="pip install pandas"):
        GRID.to_pandas()


def test_html_shows_tables_and_failures_escaped():
    text = GRID._repr_html_()
    assert "<b>0.875" in text
    assert "failed: &lt;b&gt;no&lt;/b&gt; memory</p>" in text


def test_its_repr_is_short():
    assert repr(GRID) == "GridResult(3 runs, 1 failed, 1 cells skipped)"
    assert len(GRID) == 3
    assert "GridResult(0 runs" in GridResult(())._repr_html_()
