"""What went into an exported file."""

from dataclasses import replace

import pytest
import timm
import torch

from exported_models import golden
from iadbe.errors import BadConfig
from iadbe.exporting.origins import Origin, as_card, check, origins_of
from iadbe.networks.backbone import Backbone


def by_part(origins):
    return {origin.part: origin for origin in origins}


def test_data_weights_and_code_have_the_licences_that_their_sources_state():
    found = by_part(origins_of(replace(golden(), about={"dataset": "mvtec_ad"}), "abc"))
    assert found["training data"] == Origin("training data", "mvtec_ad", "CC BY-NC-SA 4.0", "abc")
    assert found["code"].licence == "Apache-2.0"
    assert len(found["learnt"].digest) == 64
    assert "backbone weights" not in found
    assert as_card(origins_of(golden()))[0]["part"] == "training data"


def test_data_without_a_card_has_no_known_licence():
    assert by_part(origins_of(replace(golden(), about={})))["training data"].licence == "not known"
    assert (
        by_part(origins_of(replace(golden(), about={"dataset": "elsewhere"})))["training data"].licence == "not known"
    )


@pytest.mark.parametrize(
    ("weights", "licence"), [("auto", "apache-2.0"), ("none", "none: random weights"), ("a file", "not known")]
)
def test_a_backbone_has_the_licence_of_its_weights(tmp_path, weights, licence):
    if weights == "a file":
        weights = str(tmp_path / "own.pth")
        torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), weights)
    fitted = golden()
    detector = torch.nn.Module()
    detector.net = Backbone("tf_efficientnet_lite0", [1], weights)
    detector.own = torch.nn.Linear(2, 3)
    found = by_part(origins_of(replace(fitted, detector=detector)))
    assert found["backbone weights"].licence == licence
    detector.own.weight.data += 1
    changed = by_part(origins_of(replace(fitted, detector=detector)))
    assert changed["learnt"].digest != found["learnt"].digest
    assert changed["backbone weights"].digest == found["backbone weights"].digest


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("CC BY-NC-SA 4.0", True), ("cc-by-nc-4.0", True), ("for research only", True), ("Non-commercial use", True),
        ("CC BY 4.0", False), ("apache-2.0", False), ("yours", False), ("not known", False), ("once", False),
    ],
)  # fmt: skip
def test_licences_that_forbid_commercial_use_are_recognised(licence, forbids):
    origins = [Origin("training data", "x", licence)]
    assert origins[0].is_noncommercial == forbids
    check(origins, ["noncommercial"])
    if forbids:
        with pytest.raises(BadConfig, match=r"training data \(x: .*--allow noncommercial"):
            check(origins)
    else:
        check(origins)


def test_only_known_uses_can_be_allowed():
    with pytest.raises(BadConfig, match="--allow takes noncommercial or own, not 'all'"):
        check([], ["all"])


@pytest.mark.parametrize(
    ("task", "allowed", "licence"),
    [
        ("bottle", (), "CC BY-NC-SA 4.0"), ("bottle+nut", (), "CC BY-NC-SA 4.0"), ("all", (), "CC BY-NC-SA 4.0"),
        ("nut", (), "yours"), ("bottle", ("own",), "yours"),
    ],
)  # fmt: skip
def test_own_images_in_the_layout_of_a_data_set_are_the_users(task, allowed, licence):
    fitted = replace(golden(), about={"dataset": "mvtec_ad", "task": task})
    assert by_part(origins_of(fitted, "", allowed))["training data"].licence == licence
