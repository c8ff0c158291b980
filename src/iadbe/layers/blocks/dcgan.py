"""The two networks of a DCGAN: strided convolutions that halve the grid, transposed ones that double it.

Paper: Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
    ICLR 2016, 1511.06434; with kernels of 4 x 4 as in Akcay et al., "GANomaly", ACCV 2018, 1805.06725.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from iadbe.errors import BadConfig

SIZES = (16, 32, 64, 128, 256)
GRID = 4  # side of the smallest feature map


def strided_encoder(size: int, width: int, outputs: int) -> nn.Sequential:
    """Return a network from images (B, 3, size, size) to (B, outputs, 1, 1); the last layer is a linear map.

    Args:
        size: side of the images in pixels, one of ``SIZES``; others raise :class:`iadbe.errors.BadConfig`
        width: channels of the first layer; each of the next has twice as many as the one before
        outputs: channels of the result
    """
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for _ in range(_doublings(size)):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
        width *= 2
    return nn.Sequential(*layers, nn.Conv2d(width, outputs, GRID, bias=False))


def transposed_decoder(size: int, width: int, latent: int) -> nn.Sequential:
    """Return a network from codes (B, latent, 1, 1) to images (B, 3, size, size) in [-1, 1]."""
    channels = width * 2 ** _doublings(size)
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, channels, GRID, bias=False)]
    for _ in range(_doublings(size)):
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)]
        channels //= 2
    layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())


def initialise(network: nn.Module, source: torch.Generator | None = None) -> None:
    """Draw weights of convolutions from N(0, 0.02) and of batch norms from N(1, 0.02); biases become 0.

    ``source`` draws them, or torch's global generator.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0, 0.02, source)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02, source)
            nn.init.zeros_(module.bias)


def _doublings(size: int) -> int:
    """Return how many layers are between the first and the last one."""
    if size not in SIZES:
        raise BadConfig(f"size is {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}, not {size}.")
    return int(math.log2(size // GRID)) - 1
