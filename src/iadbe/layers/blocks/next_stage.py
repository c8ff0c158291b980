"""The stages of a convolutional backbone after one of its layers, as a module of their own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from iadbe.errors import BadConfig
from iadbe.networks.backbone import Backbone

TOLERANCE = 1e-4  # relative difference from the whole network; rounding causes 1e-6


def next_stage(name: str, layer: int, weights: str = "auto") -> tuple[nn.Sequential, int]:
    """Return what computes layer ``layer`` + 1 of a backbone from its layer ``layer``, and the channels of the result.

    It has the weights of the backbone, with batch norms folded into convolutions, and can be trained.

    Args:
        name: a convolutional timm model
        layer: numbered as in :class:`iadbe.networks.backbone.Backbone`
        weights: as of a backbone: a file, auto or none

    Raises:
        BadConfig: the network has no such layer, or is no chain of stages there
    """
    whole = Backbone(name, (layer, layer + 1), weights)
    network: Any = whole.network
    first, last = (network.feature_info[number]["module"] for number in whole.layers)
    parent, _, start = first.rpartition(".")
    children = dict(network.get_submodule(parent).named_children())
    end = last.rpartition(".")[2]
    names = list(children)
    if last.rpartition(".")[0] != parent or start not in names or end not in names:
        raise BadConfig(f"{name} is no chain of stages after its layer {layer}. Use a ResNet or an EfficientNet.")
    stage = nn.Sequential(*(children[n] for n in names[names.index(start) + 1 : names.index(end) + 1]))
    with torch.no_grad():
        before, expected = whole(torch.linspace(0, 1, 3 * 96 * 96).view(1, 3, 96, 96))
        found = stage(before.contiguous(memory_format=torch.channels_last))
    if found.shape != expected.shape or torch.dist(found, expected) > TOLERANCE * expected.norm():
        raise BadConfig(f"{name} is no chain of stages after its layer {layer}. Use a ResNet or an EfficientNet.")
    return copy.deepcopy(stage).requires_grad_(True), whole.channels[1]
