"""A network of a known architecture that has learnt nothing yet: what becomes a student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn


def student_network(name: str, layers: Sequence[int]) -> nn.Module:
    """Make a network up to its last wanted layer, with random weights from torch's generator."""
    network: Any = timm.create_model(name, pretrained=False, num_classes=0)
    network.prune_intermediate_layers(sorted(layers), prune_norm=True, prune_head=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # TensorFlow's models have 0.01: too slow for a few hundred steps
    return network.to(memory_format=torch.channels_last)
