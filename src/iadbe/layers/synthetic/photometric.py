"""Photometric augmentation of training images: brightness, contrast, saturation, hue, and black and white dots."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHANCE = 0.3  # of each of the two changes, independently
BRIGHTNESS = 0.1  # largest relative change
DOTS = 0.015  # largest share of white pixels, and of black ones
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey level (ITU-R BT.601)


def brightness_and_dots(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change the brightness of some images (B, 3, H, W) in [0, 1], and set some pixels of some to black or white."""
    count, _, height, width = image.shape
    changed = torch.rand(2, count, 1, 1, 1, generator=generator) < CHANCE
    factor = 1 + (torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1) * BRIGHTNESS * changed[0]
    share = DOTS * torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.rand(count, 1, height, width, generator=generator)
    white, black = (noise < share) & changed[1], (noise > 1 - share) & changed[1]
    bright = (image * factor.to(image.device)).clamp(0, 1)
    return bright.masked_fill(white.to(image.device), 1).masked_fill(black.to(image.device), 0)


def grey(image: Tensor) -> Tensor:
    """Return the grey levels (B, 1, H, W) of images (B, 3, H, W)."""
    return (image * image.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(image: Tensor, factor: Tensor) -> Tensor:
    """Multiply the values of images (B, 3, H, W) in [0, 1] by factors (B, 1, 1, 1); they are clipped."""
    return (image * factor).clamp(0, 1)


def contrast(image: Tensor, factor: Tensor, region: Tensor | None = None) -> Tensor:
    """Multiply the differences of images (B, 3, H, W) in [0, 1] to their mean grey level by factors (B, 1, 1, 1).

    The mean is over a ``region`` (B, 1, H, W), bool, or the whole image.
    """
    weight = torch.ones_like(image[:, :1]) if region is None else region.to(image)
    mean = (grey(image) * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
    return (mean + factor * (image - mean)).clamp(0, 1)


def saturation(image: Tensor, factor: Tensor) -> Tensor:
    """Multiply the differences of images (B, 3, H, W) in [0, 1] to their grey levels by factors (B, 1, 1, 1)."""
    level = grey(image)
    return (level + factor * (image - level)).clamp(0, 1)


CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation)


def jittered(image: Tensor, generator: torch.Generator, reach: float = 0.2) -> Tensor:
    """Change the brightness, the contrast or the saturation of images (B, 3, H, W) in [0, 1], one of them at random.

    Factors are drawn for each image from 1 - ``reach`` to 1 + ``reach``; ``generator`` is on the CPU. (EfficientAD,
    Batzner et al., WACV 2024, 2303.14535, algorithm 1, for its autoencoder.)
    """
    which = torch.randint(len(CHANGES), (len(image),), generator=generator)
    factor = 1 + reach * (2 * torch.rand(len(image), 1, 1, 1, generator=generator) - 1)
    changed = image.clone()
    for number, change in enumerate(CHANGES):
        if len(chosen := (which == number).nonzero()[:, 0]):
            changed[chosen] = change(image[chosen], factor[chosen].to(image.device))
    return changed


def colour_jitter(
    image: Tensor, generator: torch.Generator, strength: float = 0.1, region: Tensor | None = None
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image (B, 3, H, W) in [0, 1], in this order.

    This is torchvision's ``ColorJitter``, which draws the order too.

    Args:
        image: images in [0, 1]
        generator: draws the changes
        strength: factors are from 1 - strength to 1 + strength; hues shift by at most this share of the colour circle
        region: (B, 1, H, W), bool: pixels whose mean grey level contrast refers to; by default all
    """
    drawn = torch.rand(4, len(image), 1, 1, 1, generator=generator, device=generator.device) * 2 - 1
    factors, shift = 1 + strength * drawn[:3].to(image.device), strength * drawn[3].to(image.device)
    changed = contrast(brightness(image, factors[0]), factors[1], region)
    return hue_shifted(saturation(changed, factors[2]), shift)


def hue_shifted(image: Tensor, shift: Tensor) -> Tensor:
    """Shift the hues of images (B, 3, H, W) in [0, 1] by a share of the colour circle, (B, 1, 1, 1)."""
    value, low = image.amax(1, keepdim=True), image.amin(1, keepdim=True)
    chroma = value - low
    red, green, blue = (image / chroma.clamp(min=1e-8)).split(1, 1)
    red_first = image[:, :1] == value
    green_first = image[:, 1:2] == value
    sixth = torch.where(red_first, green - blue, torch.where(green_first, 2 + blue - red, 4 + red - green))
    sixth = torch.where(chroma > 0, sixth, torch.zeros_like(sixth)) + 6 * shift
    corner = (sixth + sixth.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)).remainder(6)  # of red, green, blue
    return value - chroma * torch.minimum(corner, 4 - corner).clamp(0, 1)
