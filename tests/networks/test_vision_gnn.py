import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iadbe.errors import BadConfig
from iadbe.networks.backbone import Backbone
from iadbe.networks.timm_loader import load_timm
from iadbe.networks.vision_gnn import SIZES, VisionGNN, _Grapher, relative_position


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(name="vig_ti_224_gelu", seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = VisionGNN(SIZES[name]).eval()
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.bias, 0, 0.1)
    return made


def head(channels):
    """Return the number of parameters of the authors' classifier, which is left out here."""
    return channels * 1024 + 1024 + 2 * 1024 + 1024 * 1000 + 1000


@pytest.mark.parametrize(("name", "total"), [("vig_ti_224_gelu", 7_184_744), ("pvig_ti_224_gelu", 12_486_314)])
def test_networks_have_the_parameters_of_the_authors_code(name, total):
    made = network(name)
    assert sum(p.numel() for p in made.parameters()) + head(SIZES[name].channels[-1]) == total


def test_tensors_have_the_names_of_the_authors_files():
    names = set(network().state_dict())
    assert {
        "pos_embed",
        "stem.convs.0.weight",
        "stem.convs.12.bias",
        "backbone.0.0.fc1.0.weight",
        "backbone.0.0.graph_conv.gconv.nn.0.weight",
        "backbone.11.0.graph_conv.gconv.nn.1.running_mean",
        "backbone.11.0.fc2.1.weight",
        "backbone.11.1.fc1.0.bias",
    } <= names
    assert not any("relative_pos" in name for name in names)
    pyramid = network("pvig_ti_224_gelu").state_dict()
    assert pyramid["backbone.0.0.relative_pos"].shape == (1, 56 * 56, 14 * 14)
    assert pyramid["backbone.2.conv.0.weight"].shape == (96, 48, 3, 3)
    assert pyramid["backbone.13.0.relative_pos"].shape == (1, 49, 49)


@pytest.mark.parametrize(("neighbours", "dilation", "ratio", "grid"), [(3, 1, 1, 0), (3, 2, 1, 4), (2, 2, 2, 4)])
def test_the_graph_convolution_equals_a_loop_over_nodes(neighbours, dilation, ratio, grid):
    grapher = _Grapher(8, neighbours, dilation, ratio, grid).eval()
    x = normal(2, 8, 4, 4)
    with torch.no_grad():
        found = grapher(x)
        inner = grapher.fc1(x)
    for image, result, before in zip(inner, found, x, strict=True):
        nodes = image.flatten(1).T
        others = F.avg_pool2d(image, ratio).flatten(1).T
        rows = []
        for i, node in enumerate(nodes):
            away = []
            for j, other in enumerate(others):
                near = 2 - 2 * float(node @ other / node.norm() / other.norm())
                away.append((near + (float(grapher.relative_pos[0, i, j]) if grid else 0.0), j))
            chosen = [j for _, j in sorted(away)][: neighbours * dilation : dilation]
            assert len(chosen) == neighbours
            largest = torch.stack([others[j] - node for j in chosen]).amax(0)
            rows.append(torch.stack([node, largest], 1).flatten())  # channels alternate
        convolved = grapher.graph_conv.gconv.nn(torch.stack(rows).T.reshape(1, 16, 4, 4))
        with torch.no_grad():
            torch.testing.assert_close(result, before + grapher.fc2(convolved)[0], rtol=1e-4, atol=1e-5)


def test_near_positions_are_preferred():
    """Entry (i, j) is the mean over channels of the products of sines and cosines of both rows and columns."""
    channels, grid = 16, 5
    found = relative_position(channels, grid)
    for i, j in ((0, 0), (3, 17), (24, 6)):
        total = 0.0
        for k in range(channels // 4):
            rate = 10_000 ** (-k / (channels / 4))
            total += math.cos((i // grid - j // grid) * rate) + math.cos((i % grid - j % grid) * rate)
        assert float(found[i, j]) == pytest.approx(2 * total / channels, abs=1e-6)
    assert (found.diagonal() == found.amax(1)).all()


def test_layers_are_blocks_and_pruning_keeps_them():
    made, x = network("pvig_ti_224_gelu"), normal(1, 3, 64, 64)
    with torch.no_grad():
        low, high = made.forward_intermediates(x, [1, 5])
        made.prune_intermediate_layers([1, 5])
        again = made.forward_intermediates(x, [1, 5])
    assert low.shape == (1, 48, 16, 16)
    assert high.shape == (1, 240, 4, 4)
    torch.testing.assert_close(again, [low, high])
    assert [made.feature_info[i]["reduction"] for i in (1, 5, 11)] == [4, 16, 32]
    assert len(made.backbone) == 8


@pytest.mark.parametrize("name", ["vig_ti_224_gelu", "pvig_ti_224_gelu"])
def test_small_images_have_fewer_nodes_than_neighbours(name):
    with torch.no_grad():
        assert torch.isfinite(network(name)(normal(2, 3, 40, 48))).all()


def test_a_file_of_the_authors_is_a_backbone(tmp_path):
    made = network()
    state = {**made.state_dict(), "prediction.0.weight": torch.zeros(1024, 192, 1, 1)}
    torch.save(state, tmp_path / "vig.pth")
    backbone = Backbone("vig_ti_224_gelu", (0, 1), str(tmp_path / "vig.pth"))
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = made.forward_intermediates((x - 0.5) / 0.5, [0, 1])
    assert (backbone.channels, backbone.strides) == ((192, 192), (16, 16))
    for found, layer in zip(backbone(x), expected, strict=True):
        assert (found - layer).norm() < 0.02 * layer.norm()  # rounding may exchange a neighbour
    with pytest.raises(BadConfig, match="does not hold weights of"):
        Backbone("vig_s_224_gelu", (0, 1), str(tmp_path / "vig.pth"))


def test_timm_loads_pretrained_weights_without_the_classifier(tmp_path):
    made = network()
    torch.save({**made.state_dict(), "prediction.4.bias": torch.zeros(1000)}, tmp_path / "vig.pth")
    timm = load_timm()
    assert timm.get_pretrained_cfg("vig_ti_224_gelu.in1k").url.endswith("/vig/vig_ti_74.5.pth")
    place = {"file": str(tmp_path / "vig.pth"), "source": "file"}
    loaded = timm.create_model("vig_ti_224_gelu.in1k", pretrained=True, num_classes=0, pretrained_cfg_overlay=place)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in loaded.state_dict().items())
