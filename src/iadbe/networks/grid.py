"""Sizes that a network can take: the patches of a transformer must divide the image.

Detectors take views of any sides; what does not fit is resized here, inside the network's input, so maps, masks and
metrics keep the size of the view and detectors stay comparable.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress


def grid_size(network: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Return the nearest height and width that the network's patches divide; convolutions take any."""
    embedding: Any = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", 1)
    rows, columns = (patch, patch) if isinstance(patch, int) else patch
    return max(1, round(height / rows)) * rows, max(1, round(width / columns)) * columns


def on_grid(network: nn.Module, image: Tensor) -> Tensor:
    """Resize images (B, 3, H, W) in [0, 1] to a size that the network takes."""
    size = grid_size(network, image.shape[-2], image.shape[-1])
    if size == (image.shape[-2], image.shape[-1]):
        return image
    return without_aliasing(image, size, "bicubic").clamp(0, 1)


def without_aliasing(image: Tensor, size: tuple[int, int], mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Resize images (B, C, H, W) to (B, C, *size) with a filter as wide as the pixels of the smaller image.

    An exported graph multiplies with the matrices of both axes, because inference engines differ in their resizing.
    """
    if not torch.compiler.is_exporting():
        return F.interpolate(image, size=size, mode=mode, align_corners=False, antialias=True)
    down, across = (
        torch.from_numpy(_filter_matrix(old, new, mode)).to(image)
        for old, new in zip(image.shape[-2:], size, strict=True)
    )
    # OpenVINO 2026.4 merges a product with a constant on the right and the normalisation after it, and fails at that
    return (across @ (down @ image).mT).mT


def _filter_matrix(old: int, new: int, mode: str) -> np.ndarray:
    """Return the matrix (new, old) of torch's antialiased resizing along one axis, float32."""
    scale = np.float32(old) / np.float32(new)  # torch computes in single precision too
    widened, half = max(scale, np.float32(1)), np.float32(1 if mode == "bilinear" else 2)
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = scale * np.float32(row + 0.5)
        first = max(int(centre - half * widened + 0.5), 0)
        places = np.arange(first, min(int(centre + half * widened + 0.5), old))
        apart = np.abs((places.astype(np.float32) - centre + np.float32(0.5)) / widened)
        weights = (1 - apart).clip(0) if mode == "bilinear" else _cubic(apart)
        matrix[row, places] = weights / weights.sum()
    return matrix.astype(np.float32)


def _cubic(apart: np.ndarray) -> np.ndarray:
    """Return the weights of Keys' cubic filter, a = -0.5, at distances in pixels."""
    near = (1.5 * apart - 2.5) * apart**2 + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    return np.where(apart < 1, near, np.where(apart < 2, far, 0))


def note_rounding(name: str, network: nn.Module, image: Tensor) -> None:
    """Say in the run's notes where a network sees images at another size than that of the view."""
    note_size(name, image, grid_size(network, image.shape[-2], image.shape[-1]), "its patches must divide them")


def note_size(name: str, image: Tensor, size: tuple[int, int], why: str) -> None:
    """Say in the run's notes at which size images (B, 3, H, W) are seen, where it is another one."""
    shown = (image.shape[-2], image.shape[-1])
    if size != shown:
        progress.note(
            f"{name} sees images of {size[0]} x {size[1]} pixels instead of {shown[0]} x {shown[1]} (height x width): "
            f"{why}. Maps and metrics have the size of the view."
        )


def on_multiple(name: str, image: Tensor, step: int) -> Tensor:
    """Enlarge images (B, 3, H, W) to the next sides that ``step`` divides, with a note."""
    height, width = (-(-side // step) * step for side in image.shape[-2:])
    note_size(name, image, (height, width), f"{step} must divide both sides")
    if (height, width) == (image.shape[-2], image.shape[-1]):
        return image
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False)
