"""Poisson blending: a patch is put into an image by its gradients, so that no edge shows.

Paper: Pérez et al., "Poisson Image Editing", SIGGRAPH 2003: equation 7 (the discrete problem), 9 to 11 (seamless
    cloning) and 13 (mixed gradients). Within the mask, with values f*, patch g, neighbours N(p) of a pixel p:

        |N(p)| f(p) - Σ f(q) for q in N(p) within the mask = Σ f*(q) for q in N(p) outside it + Σ v(p, q) for q in N(p)

    with v(p, q) = g(p) - g(q). With mixed gradients it is f*(p) - f*(q) where that is larger in absolute value.
Differs:
    * OpenCV's ``seamlessClone`` solves in the whole rectangle around the mask. Here the image outside the mask stays.

The system is solved by conjugate gradients. The preconditioner is the exact inverse in the rectangle around the mask,
by sine transforms: a rectangular mask takes one iteration, any other some ten.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.errors import BadConfig

TOLERANCE = 1e-5  # of the residual, as a share of the right side
ITERATIONS = 500  # at most
SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # to the neighbours of a pixel


def poisson_blended(image: Tensor, patch: Tensor, mask: Tensor, top: int, left: int, mixed: bool = False) -> Tensor:
    """Return the image with a patch blended into it, with values in [0, 1].

    Args:
        image: (C, H, W) in [0, 1]
        patch: (C, h, w) in [0, 1]
        mask: where the patch is blended in, (h, w), bool; its border never is
        top: row of the patch's first pixel in the image
        left: column of the patch's first pixel in the image
        mixed: keep the image's gradients where they are larger

    Raises:
        BadConfig: if the patch is not within the image, or patch and mask differ in size
    """
    height, width = mask.shape
    if patch.shape[-2:] != mask.shape or top < 0 or left < 0:
        raise BadConfig(f"a patch of {tuple(patch.shape)} with a mask of {tuple(mask.shape)} cannot be blended in.")
    if top + height > image.shape[-2] or left + width > image.shape[-1]:
        raise BadConfig(f"a patch of {height} x {width} pixels at ({top}, {left}) is not within the image.")
    inside = F.pad(mask[1:-1, 1:-1], (1, 1, 1, 1))
    if not inside.any():
        return image.clone()
    before = image[:, top : top + height, left : left + width]
    place = torch.device("cpu") if image.device.type == "mps" else image.device  # mps has no float64
    known, wanted = (pixels.to(place).double() for pixels in (before, patch))
    result = image.clone()
    result[:, top : top + height, left : left + width] = solve(known, wanted, inside.to(place), mixed).to(image)
    return result


def solve(image: Tensor, patch: Tensor, mask: Tensor, mixed: bool = False) -> Tensor:
    """Return the solution of the blending equation, with values in [0, 1] within the mask: (C, h, w), float64.

    Args:
        image: (C, h, w), float64
        patch: (C, h, w), float64
        mask: (h, w), bool; False at the border
        mixed: with mixed gradients
    """
    inner = mask[1:-1, 1:-1].to(image.dtype)
    outside = image * ~mask  # f* where it is known
    right = torch.zeros_like(image[:, 1:-1, 1:-1])
    for shift in SHIFTS:
        guide = patch[:, 1:-1, 1:-1] - _shifted(patch, shift)
        if mixed:
            own = image[:, 1:-1, 1:-1] - _shifted(image, shift)
            guide = torch.where(own.abs() > guide.abs(), own, guide)
        right += guide + _shifted(outside, shift)
    found = image.clone()
    solution = _conjugate_gradients(right * inner, inner)
    found[:, 1:-1, 1:-1] = torch.where(mask[1:-1, 1:-1], solution.clamp(0, 1), image[:, 1:-1, 1:-1])
    return found


def _conjugate_gradients(right: Tensor, inner: Tensor) -> Tensor:
    """Solve the negative Laplacian equation within ``inner`` (h, w) for right sides (C, h, w), with 0 outside."""
    x = torch.zeros_like(right)
    residual = right.clone()
    goal = TOLERANCE * right.norm(dim=(1, 2)).clamp(min=1e-9)
    direction = better = _rectangle_inverse(residual) * inner
    product = (residual * better).sum((1, 2), keepdim=True)
    for _ in range(ITERATIONS):
        image_of = _negative_laplacian(direction) * inner
        along = (direction * image_of).sum((1, 2), keepdim=True)
        length = product / along.clamp(min=1e-300)
        x += length * direction
        residual -= length * image_of
        if bool((residual.norm(dim=(1, 2)) <= goal).all()):
            break
        better = _rectangle_inverse(residual) * inner
        before, product = product, (residual * better).sum((1, 2), keepdim=True)
        direction = better + product / before.clamp(min=1e-300) * direction
    return x


def _negative_laplacian(x: Tensor) -> Tensor:
    """Return 4 x(p) minus the sum over the neighbours of p, for x (C, h, w) that is 0 around the rectangle."""
    padded = F.pad(x, (1, 1, 1, 1))
    return 4 * x - sum(_shifted(padded, shift) for shift in SHIFTS)


def _rectangle_inverse(right: Tensor) -> Tensor:
    """Solve the negative Laplacian equation in a rectangle (C, h, w) with 0 around it, exactly, by sine transforms."""
    (down, rows), (across, columns) = (_sines(side, right.device) for side in right.shape[-2:])
    return down @ ((down @ right @ across) / (rows[:, None] + columns)) @ across


@functools.lru_cache(64)
def _sines(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the orthonormal, symmetric matrix of the sine transform, and the eigenvalues of -d²/dx²: (side,)."""
    number = torch.arange(1, side + 1, dtype=torch.float64, device=device)
    angle = math.pi / (side + 1)
    return math.sqrt(2 / (side + 1)) * (number[:, None] * number * angle).sin(), 2 - 2 * (number * angle).cos()


def _shifted(x: Tensor, shift: tuple[int, int]) -> Tensor:
    """Return the neighbours of the inner pixels of x (C, h, w): (C, h - 2, w - 2)."""
    down, across = shift
    height, width = x.shape[-2:]
    return x[:, 1 + down : height - 1 + down, 1 + across : width - 1 + across]
