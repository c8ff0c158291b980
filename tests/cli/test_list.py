import json

import pytest

from iadbe.cli import main
from iadbe.registry import names


@pytest.mark.parametrize("shelf", ["detectors", "datasets", "settings", "metrics"])
def test_a_shelf_is_listed(shelf, capsys):
    assert main(["list", shelf, "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(names(shelf))


def test_backbones_name_the_one_that_comes_along(capsys):
    assert main(["list", "backbones"]) == 0
    assert "tf_efficientnet_lite0" in capsys.readouterr().out


def test_an_unknown_shelf_is_told(capsys):
    assert main(["list", "detektors"]) in (1, 2)
    assert "detectors" in capsys.readouterr().err
