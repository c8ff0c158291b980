"""A student network: a timm architecture with random weights, which learns to predict a teacher's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from iadbe.networks.timm_loader import load_timm


def student_network(name: str, layers: Sequence[int], unit_scales: bool = False) -> nn.Module:
    """Make a timm network up to its last wanted layer, with random weights from torch's global generator.

    Use it within :func:`iadbe.layers.training.loop.seeded`. Layers are numbered as in
    :class:`iadbe.networks.backbone.Backbone`. ``unit_scales`` lets the scales of all batch norms start at 1, as in
    torchvision; timm starts the last one of each residual block at 0.
    """
    network: Any = load_timm().create_model(name, pretrained=False, num_classes=0)
    network.prune_intermediate_layers(sorted(layers), prune_norm=True, prune_head=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            if unit_scales:
                nn.init.ones_(module.weight)
            module.momentum = 0.1  # networks from TensorFlow have 0.01, too slow for a few hundred steps
    return network.to(memory_format=torch.channels_last)
