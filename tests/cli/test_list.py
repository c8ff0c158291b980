import json
import subprocess
import sys

import pytest

from iadbe.cli import list as command
from iadbe.networks import backbone
from iadbe.registry import names


@pytest.mark.parametrize("registry_name", ["datasets", "settings", "metrics"])
def test_a_registry_is_listed(iadbe, registry_name):
    output = iadbe("list", registry_name, "--json")
    assert [row["name"] for row in json.loads(output.out)] == list(names(registry_name))
    lines = iadbe("list", registry_name).out.splitlines()
    assert [line.split()[0] for line in lines] == [registry_name[:-1], *names(registry_name)]


def test_detectors_are_grouped_by_kind(iadbe):
    rows = json.loads(iadbe("list", "detectors", "--json").out)
    assert [row["name"] for row in rows] == list(names("detectors"))
    head, *groups = iadbe("list", "detectors").out.rstrip().split("\n\n")
    assert head.split() == [
        "detector",
        "year",
        "can",
        *(["needs"] * any(r["needs"] != ["image"] for r in rows)),
        "foreign",
        "export",
        "waits",
        "for",
    ]
    shown = {g.partition(":")[0]: [line.split()[0] for line in g.splitlines()[1:]] for g in groups}
    assert list(shown) == sorted({row["kind"] for row in rows}, key=str.lower)
    assert shown == {kind: [row["name"] for row in rows if row["kind"] == kind] for kind in shown}


def test_detectors_are_chosen_by_what_they_can_need_and_are(iadbe):
    rows = json.loads(iadbe("list", "detectors", "--json").out)

    def chosen(*options):
        return [row["name"] for row in json.loads(iadbe("list", *options, "--json").out)]

    assert chosen("detectors", "--can", "localise,merge", "--kind", "Gaussian") == ["orthoad", "padim"]
    assert "winclip" in chosen("--can=zero-shot")
    assert "dfkde" not in chosen("--can", "localise", "--needs", "image")
    assert chosen("--needs", "image") == [row["name"] for row in rows if row["needs"] == ["image"]]
    assert "no detector is such" in iadbe("list", "--can", "zero-shot", "--kind", "flow").out


def test_what_cannot_be_exported_says_no(iadbe):
    rows = {row["name"]: row["export"] for row in json.loads(iadbe("list", "detectors", "--json").out)}
    assert (rows["padim"], rows["devnet"], rows["btf"]) == ("", "no", "no")
    assert "its map is the gradient of the score" in iadbe("show", "devnet").out


def test_a_choice_that_nothing_has_is_one_sentence(iadbe):
    output = iadbe("list", "detectors", "--can", "localize")
    assert (output.code, output.out) == (2, "")
    assert "--can has no 'localize'. Did you mean localise?" in output.err
    assert "choose among detectors" in iadbe("list", "metrics", "--can", "localise").err


def test_missing_weight_files_are_named(iadbe, monkeypatch):
    command._is_here.cache_clear()
    monkeypatch.setattr(command, "backbones", lambda: [{"name": command.BUNDLED[0], "what": "comes with IADBE"}])
    waits = {row["name"]: row["waits_for"] for row in json.loads(iadbe("list", "detectors", "--json").out)}
    assert waits["patchcore"] == ["wide_resnet50_2.tv_in1k (paper)"]
    assert waits["golden"] == []
    assert waits["winclip"] == ["open_clip's ViT-B-16-plus-240, laion400m_e32"]
    command._is_here.cache_clear()
    monkeypatch.setattr(command, "backbones", lambda: [{"name": "wide_resnet50_2", "what": "in the cache of torch: x"}])
    waits = {row["name"]: row["waits_for"] for row in json.loads(iadbe("list", "detectors", "--json").out)}
    assert waits["patchcore"] == ["tf_efficientnet_lite0.in1k"]
    command._is_here.cache_clear()


def test_everything_is_listed_without_arguments_and_without_torch(elsewhere):
    code = (
        "import sys; from iadbe.cli import main; assert main(['list']) == 0\n"
        "assert not {'torch', 'numpy', 'timm', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heads = [block.split()[0] for block in done.stdout.split("\n\n")]
    assert [head for head in heads if head in {s[:-1] for s in command.LISTABLE}] == [s[:-1] for s in command.LISTABLE]


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
