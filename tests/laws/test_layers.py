"""layers/: saved models with older names of tensors load."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import iadbe.layers
from iadbe.detector import Detector
from iadbe.layers.blocks.aspp import ASPP
from iadbe.layers.blocks.attention import FeedForward, LinearAttention, LinearBlock
from iadbe.layers.blocks.one_class_decoder import OneClassDecoder
from iadbe.layers.flows.invertible import Flow
from iadbe.layers.flows.scaling import ChannelAffine
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

ROOT = Path(iadbe.layers.__file__).parent
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")
RENAMED = {
    ASPP: lambda: ASPP(4, 2, (1, 2)),
    FeedForward: lambda: FeedForward(4, 8, 0.0),
    Flow: lambda: Flow([ChannelAffine(3), ChannelAffine(3)]),
    OneClassDecoder: lambda: OneClassDecoder(Backbone("resnet10t", (1, 2), "none")),
    LinearAttention: lambda: LinearAttention(4, 2),
    LinearBlock: lambda: LinearBlock(4, 2),
}


class Holder(Detector):
    """A detector that consists of one layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def fit(self, train, rng):
        """Learn nothing."""

    def predict(self, batch):
        return Prediction(batch.image.mean((1, 2, 3)))


def names(path):
    return [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")]


def test_every_layer_with_renamed_tensors_is_tried_here():
    found = set()
    for path in MODULES:
        module = importlib.import_module("iadbe.layers." + ".".join(path.relative_to(ROOT).with_suffix("").parts))
        classes = [getattr(module, name) for name in names(path) if inspect.isclass(getattr(module, name))]
        found |= {c for c in classes if "renamed_tensors" in vars(c)}
    assert found == set(RENAMED)


@pytest.mark.parametrize("layer", RENAMED, ids=lambda c: c.__name__)
def test_a_model_saved_under_the_old_names_loads(layer):
    torch.manual_seed(0)
    saved, other = Holder(RENAMED[layer]()), Holder(RENAMED[layer]())
    tensors = {}
    for name, value in saved.state_dict().items():
        for old, new in layer.renamed_tensors.items():
            name = re.sub(rf"^layer\.{new}\b", f"layer.{old}", name)
        tensors[name] = value
    assert tensors.keys() != saved.state_dict().keys()
    assert all(old in " ".join(tensors) for old in layer.renamed_tensors)
    other.load_tensors(tensors)
    for (name, mine), theirs in zip(other.state_dict().items(), saved.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
