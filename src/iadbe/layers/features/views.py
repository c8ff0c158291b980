"""Images of a batch in another geometry, under keys of their own, so that the feature store still serves them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.images import Batch
from iadbe.networks.backbone import Backbone


def rotated(batch: Batch, degrees: float) -> Batch:
    """Turn the images counter-clockwise around their middle; what comes in at the corners is mirrored."""
    if degrees % 360 == 0:
        return batch
    turn = torch.full((len(batch),), float(degrees))
    return replace(batch, image=rotated_images(batch.image, turn), keys=_named(batch, f"r{degrees % 360:g}"))


def rotated_images(image: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image of (B, 3, H, W) counter-clockwise by its own angle (B,), mirrored at the border."""
    angle = degrees.to(image.device, torch.float32) * (math.pi / 180)
    cos, sin, nought = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # the grid says where each pixel of the result comes from; y points down
    place = torch.stack([torch.stack([cos, -sin, nought], 1), torch.stack([sin, cos, nought], 1)], 1)  # (B, 2, 3)
    return warped_images(image, place)


def warped_images(image: Tensor, place: Tensor) -> Tensor:
    """Take the pixels of (B, C, H, W) from where the matrices (B, 2, 3) say, in an image from -1 to 1, mirrored."""
    grid = F.affine_grid(place.to(image.dtype), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def is_transformer(backbone: Backbone) -> bool:
    """Say whether the layers are blocks of a plain vision transformer, whose output no norm has seen."""
    return (
        hasattr(backbone.network, "patch_embed") and len({i["reduction"] for i in backbone.network.feature_info}) == 1
    )


def _named(batch: Batch, change: str) -> tuple[str, ...] | None:
    return None if batch.keys is None else tuple(f"{key}-{change}" for key in batch.keys)
