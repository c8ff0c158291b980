import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe.detectors import graphcore
from iadbe.detectors.graphcore import GraphCore, max_relative
from iadbe.errors import BadConfig


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(pixels, seed=0, **params):
    detector = GraphCore(**{"backbone": "resnet10t", "layers": (1, 2), "weights": "none", **params})
    detector.fit(images(pixels), np.random.default_rng(seed))
    return detector


@pytest.mark.parametrize("chunk", [2**23, 40])
def test_max_relative_equals_a_loop_over_nodes(chunk, monkeypatch):
    monkeypatch.setattr(graphcore, "CHUNK", chunk)
    features = normal(2, 5, 3, 4)
    found = max_relative(features, 3)
    for image, convolved in zip(features, found, strict=True):
        nodes = image.flatten(1).T
        for i, node in enumerate(nodes):
            cosine = [float(node @ other / node.norm() / other.norm()) for other in nodes]
            neighbours = sorted(range(12), key=lambda j: -cosine[j])[:3]
            expected = torch.stack([nodes[j] - node for j in neighbours]).amax(0)
            torch.testing.assert_close(convolved.flatten(1)[:, i], torch.cat([node, expected]))


def test_the_graph_convolution_is_equivariant_to_rotation_and_mirroring():
    """It does not depend on the positions of nodes, and an isometry only permutes them."""
    features = normal(2, 6, 5, 5)
    convolved = max_relative(features, 4)
    torch.testing.assert_close(max_relative(features.rot90(1, (2, 3)), 4), convolved.rot90(1, (2, 3)))
    torch.testing.assert_close(max_relative(features.flip(3), 4), convolved.flip(3))
    assert float(convolved[:, 6:].min()) >= 0


def test_the_relative_feature_is_large_where_a_node_is_smaller_than_its_neighbours():
    features = normal(1, 8, 1, 1).expand(1, 8, 6, 6) + 0.01 * normal(1, 8, 6, 6)
    features[..., 2, 3] += 1
    relative = max_relative(features, 9)[:, 8:].norm(dim=1)[0]
    assert int(relative.argmax()) != 2 * 6 + 3  # it is larger than its neighbours in every channel
    features[..., 2, 3] -= 2
    relative = max_relative(features, 9)[:, 8:].norm(dim=1)[0]
    assert int(relative.argmax()) == 2 * 6 + 3


def test_the_bank_holds_rotated_images():
    train = parts(2)
    rotated = [np.rot90(p, k).copy() for p in train for k in range(4)]
    four, one = fitted(train, coreset=1.0), fitted(train, coreset=1.0, rotations=1)
    assert len(four.bank) == 4 * len(one.bank)
    assert len(fitted(train, coreset=1.0, max_rotated=1).bank) == len(one.bank)
    assert float(four.predict(batch(rotated)).score.max()) < 1e-3
    assert float(one.predict(batch(rotated)).score.max()) > 1e-2


def test_a_dent_is_found_from_one_image():
    detector = fitted(parts(1), backbone="tf_efficientnet_lite0", weights="auto", coreset=1.0)
    good, bad = (detector.predict(batch(parts(6, seed=s, defective=d))).score for s, d in ((2, False), (3, True)))
    assert (bad[:, None] > good).float().mean() > 0.9


def test_merged_clients_hold_both_banks():
    one, two = fitted(parts(2), coreset=0.1), fitted(parts(2, seed=1), coreset=0.2)
    merged = GraphCore("resnet10t", (1, 2), "none")
    merged.merge([one, two])
    assert len(merged.bank) == len(one.bank) + len(two.bank)


def test_the_layers_of_a_vision_gnn_are_the_features():
    """Its own graph convolutions stand in for the one without trained weights."""
    detector = fitted(parts(2), backbone="vig_ti_224_gelu", layers=(3, 4), rotations=1, coreset=1.0)
    shown = batch(parts(2))
    torch.testing.assert_close(detector._nodes(shown), torch.cat(detector.backbone(shown), 1))
    assert detector.bank.shape == (2 * 4 * 4, 2 * 192)
    assert float(detector.predict(shown).score.max()) < 1e-2
    assert float(detector.predict(batch(parts(2, seed=1, defective=True))).score.min()) > 1e-2


@pytest.mark.parametrize("wrong", [{"coreset": 0.0}, {"rotations": 5}, {"edges": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="is to be"):
        GraphCore("resnet10t", (1, 2), "none", **wrong)
