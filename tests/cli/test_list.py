import json
import subprocess
import sys

import pytest

from iadbe.cli import list as command
from iadbe.networks import backbone
from iadbe.registry import names


@pytest.mark.parametrize("registry_name", ["detectors", "datasets", "settings", "metrics"])
def test_a_registry_is_listed(iadbe, registry_name):
    output = iadbe("list", registry_name, "--json")
    assert [row["name"] for row in json.loads(output.out)] == list(names(registry_name))
    lines = iadbe("list", registry_name).out.splitlines()
    assert [line.split()[0] for line in lines] == [registry_name[:-1], *names(registry_name)]


def test_everything_is_listed_without_arguments_and_without_torch(elsewhere):
    code = (
        "import sys; from iadbe.cli import main; assert main(['list']) == 0\n"
        "assert not {'torch', 'numpy', 'timm', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert [block.split()[0] for block in done.stdout.split("\n\n")] == [s[:-1] for s in command.LISTABLE]


def test_a_detector_is_listed_with_year_kind_paper_and_what_it_can(iadbe):
    (padim,) = (row for row in json.loads(iadbe("list", "detector", "--json").out) if row["name"] == "padim")
    assert (padim["year"], padim["kind"]) == (2020, "Gaussian")
    assert "localise" in padim["can"]
    assert "2011.08785" in padim["paper"]


def test_backbones_are_those_that_the_backbone_finds(iadbe, elsewhere, monkeypatch):
    assert command.BUNDLED == (backbone.BUNDLED, backbone.BUNDLED_PACKAGE)
    monkeypatch.setenv("HF_HUB_CACHE", str(elsewhere / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(elsewhere / "torch"))
    weights = elsewhere / "hub/models--timm--resnet18.a1_in1k/snapshots/0123/model.safetensors"
    empty = elsewhere / "hub/models--timm--resnet50.a1_in1k/snapshots/0123"
    checkpoint = elsewhere / "torch/hub/checkpoints/wide_resnet50_2-95faca4d.pth"
    for folder in (weights.parent, empty, checkpoint.parent):
        folder.mkdir(parents=True)
    weights.touch()
    checkpoint.touch()
    found = [row["name"] for row in json.loads(iadbe("list", "backbones", "--json").out)]
    assert found == ["tf_efficientnet_lite0", "resnet18.a1_in1k", "wide_resnet50_2"]


def test_mistakes_are_one_sentence(iadbe):
    output = iadbe("list", "detektors")
    assert (output.code, output.out) == (1, "")
    assert "Did you mean detectors" in output.err
    assert "Did you mean --json" in iadbe("list", "--jsno").err
