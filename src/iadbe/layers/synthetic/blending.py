"""Lays a texture over an image where a mask says, with a random opacity.

Paper: Zavrtanik et al., "DRAEM", ICCV 2021, 2108.07610, equation 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def blended(
    image: Tensor,
    mask: Tensor,
    texture: Tensor,
    generator: torch.Generator,
    opacity: tuple[float, float] = (0.1, 1.0),
) -> Tensor:
    """Lay ``texture`` (B, 3, H, W) over ``image`` (B, 3, H, W) where ``mask`` (B, 1, H, W) says.

    How much of the texture shows is drawn for each image, uniformly from ``opacity``.
    """
    low, high = opacity
    drawn = torch.rand(len(image), generator=generator, device=generator.device).to(image.device)
    share = (low + (high - low) * drawn).view(-1, 1, 1, 1) * mask.to(image)
    return image + share * (texture - image)
