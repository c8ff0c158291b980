import pytest
import torch

from iadbe.errors import BadConfig
from iadbe.layers.foreign.pretrained import pretrained_weights
from iadbe.networks.backbone import BUNDLED, build_network
from iadbe.networks.timm_loader import load_timm


def features(**options):
    return load_timm().create_model(BUNDLED, features_only=True, out_indices=(1, 2), **options)


def test_a_pretrained_network_gets_the_weights_that_come_with_iadbe():
    network, *_ = build_network(BUNDLED, "auto", ())
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with pretrained_weights("auto") as described:
        found = features(pretrained=True).eval()(image)
    expected = network.eval().forward_intermediates(image, indices=[1, 2], intermediates_only=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert len(described) == 1
    assert described[0].startswith("tf_efficientnet_lite0.in1k: ")


def test_none_makes_random_ones_and_what_is_not_pretrained_stays():
    original = load_timm().create_model
    with pretrained_weights("none") as described:
        features(pretrained=False)
        assert described == []
        torch.manual_seed(0)
        one = features(pretrained=True)
    assert load_timm().create_model is original
    assert described[0].startswith(f"{BUNDLED}: random-")
    torch.manual_seed(0)
    assert torch.equal(one.conv_stem.weight, original(BUNDLED, features_only=True).conv_stem.weight)


def test_weights_of_another_network_are_refused():
    with pretrained_weights("auto", {"conv_stem.weight": torch.zeros(1)}), pytest.raises(BadConfig, match="do not fit"):
        features(pretrained=True)
