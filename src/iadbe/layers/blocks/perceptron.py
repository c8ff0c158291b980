"""A multi-layer perceptron with batch norm and dropout after every hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def perceptron(sizes: Sequence[int], outputs: int, dropout: float = 0.5) -> nn.Sequential:
    """Return linear layers of the ``sizes``, each with batch norm, ReLU and dropout, then one of ``outputs`` units."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
