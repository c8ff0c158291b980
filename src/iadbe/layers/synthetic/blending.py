"""Blends a texture into an image inside a mask, with a random opacity.

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
    """Return images (B, 3, H, W) with a synthetic defect.

    Args:
        image: normal images (B, 3, H, W)
        mask: where the defects are (B, 1, H, W), bool
        texture: what they are filled with (B, 3, H, W), for example from a
            :class:`iadbe.layers.synthetic.textures.TextureSource`
        generator: draws the opacities
        opacity: range from which each image's opacity is drawn uniformly; 1 hides the image within the mask
    """
    low, high = opacity
    drawn = torch.rand(len(image), generator=generator, device=generator.device).to(image.device)
    share = (low + (high - low) * drawn).view(-1, 1, 1, 1) * mask.to(image)
    return image + share * (texture - image)
