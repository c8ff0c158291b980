"""Masks of synthetic defects: where Perlin noise exceeds a threshold.

Paper: Perlin, "Improving noise", SIGGRAPH 2002; the masks are those of Zavrtanik et al., "DRAEM", ICCV 2021,
    2108.07610, section 3.3.
Differs:
    * The lattice is rotated before it is sampled, so that corners hold noise too. DRAEM rotates the sampled image.

Results are on the device of ``generator`` and follow from it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

DRAWS = 20  # of a mask, until one is not empty; about one in ten is, so more than a few are never needed at usual sizes


def perlin_noise(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scales: Sequence[int] = (0, 1, 2, 3, 4, 5),
    rotated: bool = True,
) -> Tensor:
    """Return Perlin noise (count, 1, height, width), about between -1 and 1, with mean 0.

    The noise of each image has 2**s rows and 2**t columns of cells, with s and t drawn from ``scales``. If ``rotated``,
    it is rotated by a random angle between -90° and 90°.
    """
    device = generator.device
    exponents = torch.tensor(tuple(scales), device=device)
    drawn = exponents[torch.randint(len(exponents), (count, 2), generator=generator, device=device)]
    cells = 2.0**drawn  # (B, 2)
    turn = torch.zeros(count, device=device)
    if rotated:
        turn = (torch.rand(count, generator=generator, device=device) - 0.5) * math.pi
    side = math.ceil(math.sqrt(2) * 2.0 ** max(scales)) + 2  # the lattice covers a turned image
    direction = torch.rand(count, side * side, generator=generator, device=device) * (2 * math.pi)
    y = (torch.arange(height, device=device) + 0.5) / height - 0.5
    x = (torch.arange(width, device=device) + 0.5) / width - 0.5
    y, x = y.view(1, -1, 1), x.view(1, 1, -1)
    cosine, sine = turn.cos().view(-1, 1, 1), turn.sin().view(-1, 1, 1)
    reach = math.sqrt(0.5) if rotated else 0.5  # of a coordinate, in images
    down = (cosine * y + sine * x + reach) * cells[:, 0].view(-1, 1, 1)
    across = (cosine * x - sine * y + reach) * cells[:, 1].view(-1, 1, 1)
    return _noise(down, across, direction, side)[:, None]


def perlin_masks(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    threshold: float = 0.5,
    scales: Sequence[int] = (0, 1, 2, 3, 4, 5),
    rotated: bool = True,
) -> Tensor:
    """Return masks (count, 1, height, width), bool: where :func:`perlin_noise` is above ``threshold``.

    A mask can be empty; about one in twenty is.
    """
    return perlin_noise(count, height, width, generator, scales, rotated) > threshold


def nonempty_perlin_masks(
    count: int, height: int, width: int, generator: torch.Generator, min_region: float = 0.001
) -> Tensor:
    """Return masks like :func:`perlin_masks` without small regions; those that are empty then are drawn again.

    A mask that is still empty after :data:`DRAWS` draws is the largest region of new noise above a threshold of half
    its maximum, however small.

    Args:
        count: number of masks
        height: of a mask, in pixels
        width: of a mask, in pixels
        generator: on the device of the masks
        min_region: the smallest area of an 8-connected region as a share of the image. (CPR's code does so, and draws
            without end.)
    """
    masks = without_small_regions(perlin_masks(count, height, width, generator), min_region)
    for _ in range(DRAWS - 1):
        if not len(empty := _empty(masks)):
            return masks
        masks[empty] = without_small_regions(perlin_masks(len(empty), height, width, generator), min_region)
    if len(empty := _empty(masks)):
        noise = perlin_noise(len(empty), height, width, generator)
        masks[empty] = _largest_region(noise > noise.amax((1, 2, 3), keepdim=True) / 2)
    return masks


def perlin_masks_within(region: Tensor, generator: torch.Generator) -> Tensor:
    """Return masks like :func:`perlin_masks` within regions (B, 1, H, W), bool; ``generator`` may be on the CPU.

    Those that are empty there are drawn again, and become the region after :data:`DRAWS` draws. (Zhang et al.,
    "DiffusionAD", 2023, 2303.08730.)
    """
    height, width = region.shape[-2:]
    return _redrawn_within(region, lambda number: perlin_masks(number, height, width, generator))


def combined_perlin_masks(
    count: int, height: int, width: int, generator: torch.Generator, region: Tensor, threshold: float = 0.5
) -> Tensor:
    """Return masks (count, 1, height, width), bool: one Perlin mask, the union or the intersection of two, in a region.

    Each has probability 1/3; masks that are empty within the region (count, 1, height, width), bool, are drawn
    again, and become the region after :data:`DRAWS` draws. (Chen et al., "GLASS", ECCV 2024, 2407.09359.)
    """

    def combined(number: int) -> Tensor:
        one, two = perlin_masks(2 * number, height, width, generator, threshold).chunk(2)
        drawn = torch.rand(number, 1, 1, 1, generator=generator, device=generator.device)
        return torch.where(drawn > 2 / 3, one | two, torch.where(drawn > 1 / 3, one & two, one))

    return _redrawn_within(region, combined)


def _redrawn_within(region: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
    """Return masks in a region (B, 1, H, W), bool; ``draw`` gives as many new ones as are empty there."""
    masks = torch.zeros_like(region)
    for _ in range(DRAWS):
        if not len(empty := _empty(masks)):
            return masks
        masks[empty] = draw(len(empty)).to(region.device) & region[empty]
    return torch.where(masks.flatten(1).any(1).view(-1, 1, 1, 1), masks, region)


def _empty(masks: Tensor) -> Tensor:
    """Return the indices of masks (B, 1, H, W) without a pixel."""
    return (~masks.flatten(1).any(1)).nonzero()[:, 0]


def _largest_region(masks: Tensor) -> Tensor:
    """Return the largest 8-connected region of each mask (B, 1, H, W), bool; an empty mask becomes full."""
    kept = np.ones(masks.shape, bool)
    for image, mask in zip(kept, masks.cpu().numpy(), strict=True):
        regions, found = ndimage.label(mask[0], np.ones((3, 3)))
        if found:
            sizes = np.bincount(regions.ravel())
            image[0] = regions == 1 + sizes[1:].argmax()
    return torch.from_numpy(kept).to(masks.device)


def without_small_regions(masks: Tensor, min_region: float) -> Tensor:
    """Remove 8-connected regions of masks (B, 1, H, W), bool, smaller than ``min_region``, a share of the image."""
    kept = np.zeros(masks.shape, bool)
    for image, mask in zip(kept, masks.cpu().numpy(), strict=True):
        regions, _ = ndimage.label(mask[0], np.ones((3, 3)))
        large = np.bincount(regions.ravel()) >= min_region * mask.size
        large[0] = False  # the background
        image[0] = large[regions]
    return torch.from_numpy(kept).to(masks.device)


def _noise(down: Tensor, across: Tensor, direction: Tensor, side: int) -> Tensor:
    """Return noise (B, H, W) at lattice coordinates (B, H, W); ``direction`` holds the gradients' angles (B, side²)."""
    top, left = down.floor(), across.floor()
    dy, dx = down - top, across - left
    corner = (top * side + left).long().flatten(1)
    cosine, sine = direction.cos(), direction.sin()
    fade_down, fade_across = _fade(dy), _fade(dx)

    def slope(step_down: int, step_across: int) -> Tensor:
        place = corner + (step_down * side + step_across)
        y, x = (wave.gather(1, place).view_as(dy) for wave in (cosine, sine))
        return y * (dy - step_down) + x * (dx - step_across)

    upper, lower = (torch.lerp(slope(down, 0), slope(down, 1), fade_across) for down in (0, 1))
    return torch.lerp(upper, lower, fade_down) * math.sqrt(2)


def _fade(t: Tensor) -> Tensor:
    """Return Perlin's fade curve 6t⁵ - 15t⁴ + 10t³, whose first two derivatives are 0 at 0 and 1."""
    return t**3 * (t * (t * 6 - 15) + 10)
