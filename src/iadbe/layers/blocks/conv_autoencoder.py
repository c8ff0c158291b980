"""Encoder and mirrored decoder of convolutions with a small code, without skip connections.

Paper: Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
    Autoencoders", VISAPP 2019, 1807.02011, table 1; Dehaene and Eline, 2008.05369, take wider layers with batch norm.
Differs:
    * The first row of table 1 is repeated so often that the last feature map has 8 x 8 pixels, as in Bergmann et al.,
      "MVTec AD", CVPR 2019, for images of 256 x 256.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from iadbe.errors import BadConfig

CHANNELS = (32, 32, 64, 64, 128, 64, 32)  # of table 1: of the first rows together, then one per row
SHAPES = ((4, 2, 1), (3, 1, 1), (4, 2, 1), (3, 1, 1), (4, 2, 1), (3, 1, 1), (3, 1, 1))  # kernel, stride, padding
CODE_GRID = 8  # side of the last feature map, which one kernel reduces to the code
SIZES = (32, 64, 128, 256, 512)


def encoder(size: int, code: int, channels: Sequence[int] = CHANNELS, norm: bool = False) -> nn.Sequential:
    """Return a network from images (B, 3, size, size) to linear codes (B, code, 1, 1).

    Args:
        size: side of the images in pixels, one of ``SIZES``; others raise :class:`iadbe.errors.BadConfig`
        code: channels of the code
        channels: of the layers, seven values as in ``CHANNELS``
        norm: whether a batch norm follows each convolution but the last
    """
    layers: list[nn.Module] = []
    for (before, *_), (after, kernel, stride, padding) in pairwise(_rows(size, code, channels)):
        layers += [nn.Conv2d(before, after, kernel, stride, padding), *_activation(after, norm)]
    return nn.Sequential(*layers[: -1 - norm])


def decoder(size: int, code: int, channels: Sequence[int] = CHANNELS, norm: bool = False) -> nn.Sequential:
    """Return the mirrored network from codes (B, code, 1, 1) to linear images (B, 3, size, size)."""
    layers: list[nn.Module] = []
    for (before, kernel, stride, padding), (after, *_) in pairwise(reversed(_rows(size, code, channels))):
        layers += [nn.ConvTranspose2d(before, after, kernel, stride, padding), *_activation(after, norm)]
    return nn.Sequential(*layers[: -1 - norm])


def _rows(size: int, code: int, channels: Sequence[int]) -> list[tuple[int, ...]]:
    """Return (channels, kernel, stride, padding) of the image, whose shape is unused, and of each layer to the code."""
    if size not in SIZES:
        raise BadConfig(f"size is {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}, not {size}.")
    if code < 1 or min(channels) < 1:
        raise BadConfig("the channels of an autoencoder and of its code must all be above 0.")
    rows = [(c, *shape) for c, shape in zip(channels, SHAPES, strict=True)]
    first = [rows[0]] * (int(math.log2(size // CODE_GRID)) - 2)  # two more rows halve the grid
    return [(3, 0, 0, 0), *first, *rows[1:], (code, CODE_GRID, 1, 0)]


def _activation(channels: int, norm: bool) -> list[nn.Module]:
    return [*([nn.BatchNorm2d(channels)] if norm else []), nn.LeakyReLU(0.2)]
