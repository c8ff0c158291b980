"""The pool of augmentations of texture images: three of ten are applied to each, in random order.

Paper: Zavrtanik et al., "DRAEM", ICCV 2021, 2108.07610, section 3.2; the ten, and their ranges, are those of the
    authors' code. MemSeg (Yang et al., 2022, 2205.00908) changes images in the same way before it shuffles their tiles.
Differs:
    * Brightness is changed in the luma. The authors draw one of several colour spaces.

Every augmentation takes one image (3, H, W) in [0, 1] on the CPU and a generator, and returns the same shape and range.
Grey levels are of 8 bits where the original works on those.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
CHOSEN = 3  # augmentations per image
CUTOFF = 0.2  # largest share of the pixels that auto-contrast drops at either end


def augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] on the CPU, each changed by three different augmentations of the pool."""
    result = torch.empty_like(image)
    for number, one in enumerate(image):
        for which in torch.randperm(len(POOL), generator=generator)[:CHOSEN].tolist():
            one = POOL[which](one, generator).clamp(0, 1)
        result[number] = one
    return result


def gamma(image: Tensor, generator: torch.Generator) -> Tensor:
    """Raise each channel to a power of its own, from 0.5 to 2."""
    return image ** _uniform(0.5, 2, generator, 3).view(3, 1, 1)


def brightness(image: Tensor, generator: torch.Generator) -> Tensor:
    """Multiply the luma by 0.8 to 1.2 and shift it by up to 30 levels."""
    factor, shift = _uniform(0.8, 1.2, generator), _uniform(-30, 30, generator) / 255
    return image + (factor - 1) * luma(image) + shift


def sharpness(image: Tensor, generator: torch.Generator) -> Tensor:
    """Scale the difference from the smoothed image by 0 to 3; 1 changes nothing."""
    return with_sharpness(image, float(_uniform(0, 3, generator)))


def hue_and_saturation(image: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the hue and shift the saturation, each by up to 50 of 255 parts of its range."""
    hue, saturation = (_uniform(-50, 50, generator, 2) / 255).tolist()
    return with_hue_and_saturation(image, hue, saturation)


def solarised(image: Tensor, generator: torch.Generator) -> Tensor:
    """Invert, with probability 0.5, what is at least as bright as a level from 32 to 128."""
    chance, level = torch.rand((), generator=generator), _uniform(32, 128, generator) / 255
    return torch.where((image >= level) & (chance < 0.5), 1 - image, image)


def posterised(image: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the highest 1 to 8 bits of the grey levels."""
    step = 2 ** int(torch.randint(8, (), generator=generator))
    return (levels(image) // step * step).to(image) / 255


def inverted(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return the negative."""
    return 1 - image


def contrasted(image: Tensor, generator: torch.Generator) -> Tensor:
    """Stretch each channel to the full range after dropping up to 20 % of its pixels at either end."""
    return with_auto_contrast(image, float(_uniform(0, CUTOFF, generator)))


def equalised(image: Tensor, generator: torch.Generator) -> Tensor:
    """Give each channel a flat histogram."""
    return with_flat_histogram(image)


def turned(image: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate about the centre by up to 45° to either side; what comes from outside is black."""
    return rotated(image[None], 45, generator)[0]


POOL: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    gamma,
    brightness,
    sharpness,
    hue_and_saturation,
    solarised,
    posterised,
    inverted,
    contrasted,
    equalised,
    turned,
)


def rotated(image: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Rotate images (B, C, H, W) about their centre by random angles of at most ``degrees``; outside is black."""
    turn = _uniform(-degrees, degrees, generator, len(image)).to(image.device) * (math.pi / 180)
    height, width = image.shape[-2:]
    cosine, sine, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
    rows = (cosine, -sine * height / width, zero, sine * width / height, cosine, zero)  # in units of half a side
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3).to(image), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False)


def levels(image: Tensor) -> Tensor:
    """Return grey levels from 0 to 255, int64, of values in [0, 1]."""
    return (image * 255).round().long()


def luma(image: Tensor) -> Tensor:
    """Return the luma (1, H, W) of an image (3, H, W)."""
    return (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(0, keepdim=True)


def with_sharpness(image: Tensor, factor: float) -> Tensor:
    """Return ``image`` with its difference from a smoothed copy times ``factor``; the outermost pixels stay."""
    kernel = image.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).div(13).expand(3, 1, 3, 3)
    smooth = image.clone()
    if min(image.shape[-2:]) > 2:
        smooth[:, 1:-1, 1:-1] = F.conv2d(image[None], kernel, groups=3)[0]
    return (smooth + factor * (image - smooth)).clamp(0, 1)


def with_hue_and_saturation(image: Tensor, hue: float, saturation: float) -> Tensor:
    """Return an image with its hue turned by ``hue`` full circles and ``saturation`` added to that of HSV."""
    value, spread = image.amax(0), image.amax(0) - image.amin(0)
    safe = spread.clamp(min=1e-8)
    red, green, blue = image
    sector = torch.where(
        value == red,
        (green - blue) / safe % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = torch.where(spread > 0, sector, 0.0) + 6 * hue
    chroma = value * (spread / value.clamp(min=1e-8) + saturation).clamp(0, 1)
    offset = image.new_tensor([5, 3, 1]).view(3, 1, 1)  # of red, green and blue on the circle of six sectors
    place = (sector + offset) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def with_auto_contrast(image: Tensor, cutoff: float) -> Tensor:
    """Stretch each channel linearly so that a share ``cutoff`` of its pixels is black and as many are white.

    A channel that is then of one level stays as it is.
    """
    drop = int(cutoff * image[0].numel())
    ordered = image.flatten(1).sort(1).values
    low, high = (ordered[:, place].view(3, 1, 1) for place in (drop, ordered.shape[1] - 1 - drop))
    return torch.where(high > low, (image - low) / (high - low).clamp(min=1e-8), image).clamp(0, 1)


def with_flat_histogram(image: Tensor) -> Tensor:
    """Map the grey levels of each channel so that their distribution is uniform; one of one level stays as it is."""
    result = image.clone()
    for channel, found in zip(levels(image), result, strict=True):
        count = torch.bincount(channel.flatten(), minlength=256)
        step = int(count.sum() - count[count.nonzero()[-1]]) // 255  # the brightest level is not spread
        if step:
            table = ((count.cumsum(0) - count + step // 2) // step).clamp(max=255)
            found.copy_(table[channel] / 255)
    return result


def _uniform(low: float, high: float, generator: torch.Generator, count: int = 1) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)
