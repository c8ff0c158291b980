"""CutPaste: a rectangle of the image is pasted elsewhere in it, as a patch or as a thin rotated scar.

Paper: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021, 2104.04015,
    section 2.2. A patch covers 2 to 15 % of the image, with an aspect ratio from (0.3, 1) or (1, 3.3). A scar is 2 to
    16 pixels wide and 10 to 25 long and is rotated by -45° to 45°. The pasted pixels' colours are jittered.

Results are on the device of the images and follow from ``generator``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.synthetic.photometric import colour_jitter

AREA = (0.02, 0.15)  # of a patch, as a share of the image
ASPECT = (0.3, 3.3)  # smallest and largest quotient of a patch's sides
WIDTH, LENGTH = (2.0, 16.0), (10.0, 25.0)  # of a scar, in pixels
DEGREES = 45.0  # by which a scar is rotated at most
JITTER = 0.1  # strength of the colour jitter of the pasted pixels


def cut_paste(image: Tensor, generator: torch.Generator, jitter: float = JITTER) -> tuple[Tensor, Tensor]:
    """Paste a patch of each image (B, 3, H, W) in [0, 1] elsewhere in it.

    Returns the images and masks (B, 1, H, W), bool, of the patches. ``jitter`` is the strength of the patches' colour
    jitter.
    """
    count, _, height, width = image.shape
    area = _uniform(count, generator, *AREA) * (height * width)
    tall, wide = _uniform(count, generator, 1, ASPECT[1]), _uniform(count, generator, ASPECT[0], 1)
    aspect = torch.where(_uniform(count, generator) < 0.5, tall, wide)
    down = (area * aspect).sqrt().round().clamp(1, height)
    across = (area / aspect).sqrt().round().clamp(1, width)
    corners = [  # top and left of what is cut, then of where it is pasted
        (_uniform(count, generator) * (side - size + 1)).floor().minimum(side - size)
        for _ in range(2)
        for side, size in ((height, down), (width, across))
    ]
    cut, paste = (torch.stack([y + down / 2, x + across / 2], 1) for y, x in (corners[:2], corners[2:]))
    return _pasted(image, torch.stack([down, across], 1), cut, paste, torch.zeros(count), generator, jitter)


def cut_paste_scar(
    image: Tensor, generator: torch.Generator, jitter: float = JITTER, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Paste a scar into each image (B, 3, H, W): the image, and the mask (B, 1, H, W), bool, of the scar.

    Args:
        image: images in [0, 1], of at least 3 x 3 pixels
        generator: draws sizes, places, angles and colours
        jitter: strength of the colour jitter of the scar
        scale: factor of the scar's sides, which are for images of 256 x 256 pixels
    """
    count, _, height, width = image.shape
    most = min(height, width) / math.sqrt(2) / 1.5  # so that a rotated scar lies within the image
    across = (_uniform(count, generator, *WIDTH) * scale).clamp(1, most)
    down = (_uniform(count, generator, *LENGTH) * scale).clamp(1, most)
    angle = _uniform(count, generator, -DEGREES, DEGREES) * (math.pi / 180)
    cos, sin = angle.cos().abs(), angle.sin().abs()
    cut = _centre(generator, down, across, height, width)
    paste = _centre(generator, down * cos + across * sin, down * sin + across * cos, height, width)
    return _pasted(image, torch.stack([down, across], 1), cut, paste, angle, generator, jitter)


def _centre(generator: torch.Generator, down: Tensor, across: Tensor, height: int, width: int) -> Tensor:
    """Draw the centres (B, 2) of boxes of the given sides (B,) within the image."""
    y = down / 2 + _uniform(len(down), generator) * (height - down)
    x = across / 2 + _uniform(len(down), generator) * (width - across)
    return torch.stack([y, x], 1)


def _pasted(
    image: Tensor,
    size: Tensor,
    cut: Tensor,
    paste: Tensor,
    angle: Tensor,
    generator: torch.Generator,
    jitter: float,
) -> tuple[Tensor, Tensor]:
    """Paste boxes of ``size`` (B, 2) with the centre ``cut`` (B, 2) at ``paste`` (B, 2), rotated by ``angle`` (B,)."""
    height, width = image.shape[-2:]
    size, cut, paste = (t.to(image.device)[:, :, None, None] for t in (size, cut, paste))
    angle = angle.to(image.device).view(-1, 1, 1)
    y = (torch.arange(height, device=image.device) + 0.5).view(1, -1, 1) - paste[:, 0]
    x = (torch.arange(width, device=image.device) + 0.5).view(1, 1, -1) - paste[:, 1]
    down, across = (
        angle.cos() * y - angle.sin() * x,
        angle.sin() * y + angle.cos() * x,
    )  # within the box, from its middle
    mask = (down.abs() < size[:, 0] / 2) & (across.abs() < size[:, 1] / 2)  # (B, H, W)
    grid = torch.stack([(across + cut[:, 1]) * (2 / width) - 1, (down + cut[:, 0]) * (2 / height) - 1], 3)
    mode = "bilinear" if bool(angle.any()) else "nearest"  # without a rotation pixels are copied as they are
    found = F.grid_sample(image, grid.to(image.dtype), mode, "border", align_corners=False)
    mask = mask[:, None]
    if jitter:
        found = colour_jitter(found, generator, jitter, mask)
    return torch.where(mask, found, image), mask


def _uniform(count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draw (count,) numbers, on the CPU."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device).cpu()
