"""Rows of scored images."""

from pathlib import Path

import numpy as np

from iadbe.runtime.prediction import FileResult
from iadbe.runtime.regions import Region
from iadbe.runtime.result_row import COLUMNS, region_rows, row_of
from iadbe.runtime.scored_image import ScoredImage


def test_what_there_is_not_is_none():
    row = row_of(ScoredImage(Path("a/x.png"), float("nan"), 2.0, error="it is broken"))
    assert tuple(row) == COLUMNS
    assert (row["path"], row["score"], row["error"], row["verdict"]) == ("a/x.png", None, "it is broken", None)
    assert row_of(ScoredImage(Path("x.png"), 3.0, 2.0))["verdict"] == "reject"


def test_regions_are_those_of_the_rule_or_of_the_map():
    map_ = np.eye(3, dtype=np.float32)
    assert region_rows(FileResult(Path("x"), 1.0, map=map_), 0.5)[0]["area"] == 3
    assert region_rows(FileResult(Path("x"), 1.0, map=map_), None) is None
    assert region_rows(ScoredImage(Path("x"), 1.0), 0.5) is None
    own = Region(7, (0, 0, 7, 1), 2.0, "edge")
    assert region_rows(FileResult(Path("x"), 1.0, map=map_, regions=(own,)), 0.5) == [own.card()]
