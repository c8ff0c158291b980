"""The model that a command line names."""

import pytest

from iadbe.cli.model_path import model_folder
from iadbe.errors import BadConfig, UnknownName


def test_paths_are_taken_as_they_are_and_ids_are_looked_up(workspace):
    assert model_folder(str(workspace.padim), "elsewhere") == workspace.padim
    assert model_folder("not/there.onnx", "elsewhere").name == "there.onnx"
    run = workspace.padim.name.rpartition("-")[2]
    assert model_folder(run[:6], str(workspace.padim.parent)) == workspace.padim
    with pytest.raises(BadConfig, match="there is no folder"):
        model_folder("no/such/folder", "elsewhere")
    with pytest.raises((BadConfig, UnknownName), match="ffff"):
        model_folder("ffff", str(workspace.padim.parent))
