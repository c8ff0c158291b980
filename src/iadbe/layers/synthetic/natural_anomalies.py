"""Natural synthetic anomalies (NSA): resized patches of other images, blended in by Poisson's equation, and labels.

Paper: Schlüter et al., "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization", ECCV 2022,
    2109.15222, section 3.
Differs:
    * Blending is exact within the patch (see :mod:`iadbe.layers.synthetic.poisson`). The authors use OpenCV.
    * A later patch does not erase an earlier one from the mask.

Sizes and places are drawn by ``generator``, which is on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.errors import BadConfig
from iadbe.layers.synthetic.foreground import majority
from iadbe.layers.synthetic.poisson import poisson_blended

ATTEMPTS = 200  # to find a place
GAMMA_SCALE, GAMMA_START = 0.05, 0.03  # half a patch's side is the start plus a gamma variable of shape 2
RESIZE_DEVIATION = 0.5  # standard deviation of the factor by which a patch is resized, around 1
FEWEST = 50  # pixels of a patch
TOLERANCE = 1.0  # mean change in levels above which a pixel is anomalous
MEDIAN_RADIUS = 5  # of the disk in which changes are median-filtered


@dataclass(frozen=True)
class PatchRules:
    """How patches are chosen.

    Attributes:
        patches: at most so many; the first one is always tried, each further one with probability 1/2
        half_height: least and greatest half of a patch's height, as a share of the image's
        half_width: the same across
        resize: least and greatest factor by which a patch is resized
        min_object: share of a patch that must be object, above this
        min_overlap: share of the patch's object that must fall on the image's object, above this
        mixed: keep the image's gradients where they are larger
    """

    patches: int = 3
    half_height: tuple[float, float] = (0.03, 0.4)
    half_width: tuple[float, float] = (0.03, 0.4)
    resize: tuple[float, float] = (0.7, 1.3)
    min_object: float = 0.25
    min_overlap: float = 0.25
    mixed: bool = False

    def __post_init__(self) -> None:
        for name, bounds in (("half_height", self.half_height), ("half_width", self.half_width)):
            if len(bounds) != 2 or not 0 < bounds[0] < bounds[1] <= 0.5:
                raise BadConfig(f"{name} holds two shares from 0 to 0.5 in ascending order, not {list(bounds)}.")
        if len(self.resize) != 2 or not 0 < self.resize[0] <= self.resize[1]:
            raise BadConfig(f"resize holds two factors above 0 in ascending order, not {list(self.resize)}.")
        if self.patches < 1 or not (0 <= self.min_object < 1 and 0 <= self.min_overlap < 1):
            raise BadConfig("patches must be above 0, min_object and min_overlap at least 0 and below 1.")


@dataclass(frozen=True)
class _Patch:
    pixels: Tensor  # (3, h, w)
    object: Tensor | None  # (h, w), bool


def natural_anomaly(
    image: Tensor,
    other: Tensor,
    generator: torch.Generator,
    rules: PatchRules,
    objects: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend patches of another image into an image.

    Args:
        image: (3, H, W) in [0, 1]
        other: (3, H, W) in [0, 1], where patches are cut
        generator: draws sizes and places
        rules: how patches are chosen
        objects: masks (H, W), bool, of the objects in ``image`` and in ``other``; None: all is object

    Returns:
        the image (3, H, W), and where patches lie in it (H, W), bool; nothing changes if no place was found
    """
    result, mask = image, torch.zeros(image.shape[-2:], dtype=torch.bool, device=image.device)
    for number in range(rules.patches):
        if number and float(torch.rand((), generator=generator)) < 0.5:
            continue
        if (patch := _cut(other, objects[1] if objects else None, generator, rules)) is None:
            continue
        patch = _resized(patch, image.shape[-2:], generator, rules)
        if (place := _place(patch, objects[0] if objects else None, image.shape[-2:], generator, rules)) is None:
            continue
        top, left = place
        height, width = patch.pixels.shape[-2:]
        region = torch.ones(height, width, dtype=torch.bool, device=image.device)
        if (height - 2) * (width - 2) < FEWEST:
            continue
        result = poisson_blended(result, patch.pixels, region, top, left, rules.mixed)
        if objects and patch.object is not None:
            region = patch.object | objects[0][top : top + height, left : left + width]
        mask[top : top + height, left : left + width] |= region
    return result, mask


def anomaly_label(before: Tensor, after: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels that changed, (H, W), bool, and by how many levels, (H, W), of images (3, H, W) in [0, 1].

    A pixel is anomalous if its mean absolute change is above 1 of 255 levels; a 5 x 5 median removes specks. Levels are
    the median of the anomalous pixels' changes in a disk of radius 5.
    """
    change = (after - before).abs().mean(0) * 255
    label = majority(((change > TOLERANCE) & mask)[None, None], 5)[0, 0]
    return label, _disk_median(change * label, label)


def _cut(other: Tensor, objects: Tensor | None, generator: torch.Generator, rules: PatchRules) -> _Patch | None:
    """Cut a patch of random size at a random place that holds enough of the object; None if there is none."""
    size = other.shape[-2:]
    bounds = [_bounds(side, half) for side, half in zip(size, (rules.half_height, rules.half_width), strict=True)]
    halves = [
        int(min(max((GAMMA_START + _gamma(generator)) * side, low), high))
        for side, (low, high) in zip(size, bounds, strict=True)
    ]
    middles = [
        torch.randint(low, max(side - low, low + 1), (ATTEMPTS,), generator=generator).tolist()
        for side, (low, _) in zip(size, bounds, strict=True)
    ]
    for middle in zip(*middles, strict=True):
        (top, bottom), (left, right) = (
            (max(m - half, 0), min(m + half, side)) for m, half, side in zip(middle, halves, size, strict=True)
        )
        pixels = other[:, top:bottom, left:right]
        if objects is None:
            return _Patch(pixels, None)
        part = objects[top:bottom, left:right]
        if float(part.float().mean()) > rules.min_object:
            return _Patch(pixels, part)
    return None


def _resized(patch: _Patch, size: torch.Size, generator: torch.Generator, rules: PatchRules) -> _Patch:
    """Resize a patch by a random factor and keep its proportions, unless its bounds forbid that."""
    height, width = patch.pixels.shape[-2:]
    low, high = rules.resize
    factor = min(max(1 + RESIZE_DEVIATION * float(torch.randn((), generator=generator)), low), high)
    (least_down, most_down), (least_across, most_across) = (
        _bounds(side, half) for side, half in zip(size, (rules.half_height, rules.half_width), strict=True)
    )
    down = min(max(factor * height, least_down), most_down)
    across = int(min(max(int(down / height * width), least_across), most_across))
    down = int(min(max(int(across / width * height), least_down), most_down))
    shape = (max(down, 3), max(across, 3))
    pixels = F.interpolate(patch.pixels[None], shape, mode="bilinear", align_corners=False)[0]
    if patch.object is None:
        return _Patch(pixels, None)
    part = F.interpolate(patch.object[None, None].float(), shape, mode="bilinear", align_corners=False)[0, 0]
    return _Patch(pixels, part >= 0.5)


def _place(
    patch: _Patch, objects: Tensor | None, size: torch.Size, generator: torch.Generator, rules: PatchRules
) -> tuple[int, int] | None:
    """Find where a patch lies within the image and its object overlaps the image's enough: top and left, or None."""
    height, width = patch.pixels.shape[-2:]
    down, across = (
        torch.randint(0, side - part + 1, (ATTEMPTS,), generator=generator).tolist()
        for side, part in zip(size, (height, width), strict=True)
    )
    if patch.object is None or objects is None:
        return down[0], across[0]
    area = int(patch.object.sum())
    if area <= rules.min_object * height * width:
        return None
    for top, left in zip(down, across, strict=True):
        common = patch.object & objects[top : top + height, left : left + width]
        if int(common.sum()) > rules.min_overlap * area:
            return top, left
    return None


def _bounds(side: int, half: tuple[float, float]) -> tuple[int, int]:
    """Return the least and greatest half of a patch's side, in pixels."""
    low = max(1, round(half[0] * side))
    return low, max(low, round(half[1] * side))


def _gamma(generator: torch.Generator) -> float:
    """Draw a gamma variable of shape 2: the sum of two exponential ones."""
    one, two = (1 - torch.rand(2, generator=generator, dtype=torch.float64)).tolist()
    return -GAMMA_SCALE * math.log(one * two)


def _disk_median(values: Tensor, mask: Tensor) -> Tensor:
    """Return the median of values (H, W), which are 0 outside the mask, in a disk around each pixel.

    The border is repeated. Medians are computed where more of the disk is in the mask than not; elsewhere they are 0.
    """
    radius = MEDIAN_RADIUS
    reach = torch.arange(-radius, radius + 1, device=values.device)
    disk = reach[:, None] ** 2 + reach**2 <= radius**2
    around, inside = (F.pad(v[None, None].float(), [radius] * 4, mode="replicate") for v in (values, mask))
    most = F.conv2d(inside, disk[None, None].float())[0, 0] > int(disk.sum()) / 2
    rows, columns = most.nonzero(as_tuple=True)
    windows = around[0, 0].unfold(0, 2 * radius + 1, 1).unfold(1, 2 * radius + 1, 1)  # a view (H, W, 11, 11)
    result = torch.zeros_like(values)
    if len(rows):
        result[rows, columns] = windows[rows, columns][:, disk].median(1).values.to(values)
    return result
