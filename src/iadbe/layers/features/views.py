"""Rotated, warped and resized images.

A rotated batch has keys of its own, so that the feature store holds its features too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.images import Batch
from iadbe.layers.features.region import moved_alike
from iadbe.networks.backbone import Backbone
from iadbe.networks.grid import without_aliasing


def rotated(batch: Batch, degrees: float) -> Batch:
    """Return the batch rotated counter-clockwise around the centre; corners are filled by reflection."""
    if degrees % 360 == 0:
        return batch
    turned = each_rotated(batch, torch.full((len(batch),), float(degrees)))
    return replace(turned, keys=_named(batch, f"r{degrees % 360:g}"))


def each_rotated(batch: Batch, degrees: Tensor) -> Batch:
    """Return the batch with each image, and its region, rotated by its own angle (B,) in degrees; without keys."""
    image, region = moved_alike(lambda x: rotated_images(x, degrees), batch.image, batch.region)
    return replace(batch, image=image, region=region, keys=None)


def rotated_images(image: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image of (B, 3, H, W) counter-clockwise by its own angle (B,) in degrees; corners by reflection."""
    angle = degrees.to(image.device, torch.float32) * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # the matrix maps positions in the result to positions in the image; y points down
    matrix = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)  # (B, 2, 3)
    return warped_images(image, matrix)


def warped_images(image: Tensor, matrix: Tensor) -> Tensor:
    """Warp images (B, C, H, W) by affine matrices (B, 2, 3), as in torch's affine_grid; the outside by reflection."""
    matrix = matrix.to(image.dtype)
    if torch.compiler.is_exporting():
        grid = _grid(matrix, image.shape[2], image.shape[3])
    else:
        grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Return what affine_grid does, (B, H, W, 2), by a product of matrices: ONNX has the operation from opset 20 on."""
    down, across = ((2 * torch.arange(side, device=matrix.device) + 1) / side - 1 for side in (height, width))
    places = torch.stack([across.expand(height, -1), down[:, None].expand(-1, width)], 2).flatten(0, 1)  # (H W, 2)
    return (places.to(matrix) @ matrix[:, :, :2].mT + matrix[:, None, :, 2]).unflatten(1, (height, width))


def resized_images(image: Tensor, size: int) -> Tensor:
    """Resize images (B, C, H, W) to (B, C, size, size), bilinear and without aliasing."""
    if image.shape[-2:] == (size, size):
        return image
    return without_aliasing(image, (size, size))


def is_transformer(backbone: Backbone) -> bool:
    """Return whether the layers are blocks of a plain vision transformer, whose output is not normalised."""
    return (
        hasattr(backbone.network, "patch_embed") and len({i["reduction"] for i in backbone.network.feature_info}) == 1
    )


def _named(batch: Batch, change: str) -> tuple[str, ...] | None:
    return None if batch.keys is None else tuple(f"{key}-{change}" for key in batch.keys)
