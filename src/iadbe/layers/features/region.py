"""Pixels that do not count: padding, and what lies outside of a region of interest (``Batch.region``).

They take no part in an image's score and in what is learnt of it. All functions take ``region`` (B, H, W) bool, or None
where all pixels count; then they change nothing, to the last bit.

A loss is one over what counts if it is a mean over :func:`within`:
``F.mse_loss(within(found, region), within(truth, region))``.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, arange, cat, inf, ones_like, stack
from torch import bool as boolean

from iadbe.layers.features.patches import flattened

HALF = 0.5  # share of a position's pixels that must count


def at_grid(region: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """Return which positions of a grid (h, w) count: (B, h, w) bool; None where all do.

    A position counts where half of its pixels do. In an image without such a position (its region is thin), those
    with the largest share count, so there is always one.
    """
    if region is None or region.shape[-2:] == size:
        return region
    share = F.adaptive_avg_pool2d(region[:, None].float(), size)[:, 0]
    return (share >= share.amax((1, 2), keepdim=True).clamp(max=HALF)) & (share > 0)


def counted(scores: Tensor, region: Tensor | None) -> Tensor:
    """Return scores (B, h, w) with -inf where positions do not count."""
    counts = at_grid(region, (scores.shape[-2], scores.shape[-1]))
    return scores if counts is None else scores.masked_fill(~counts, -inf)


def image_score(map_: Tensor, region: Tensor | None = None, top: int = 1, share: float | Fraction = 0) -> Tensor:
    """Return the highest score (B,) of maps or grids of patches (B, h, w), over what counts.

    Args:
        map_: scores of pixels or positions
        region: which pixels count, of any size
        top: the mean of so many highest scores
        share: the mean of the highest share of all scores that count, of one at least, instead of ``top``
    """
    counts = at_grid(region, (map_.shape[-2], map_.shape[-1]))
    if counts is None:
        return map_.amax((1, 2)) if top == 1 and not share else _mean_of_highest(map_.flatten(1), top, share)
    if top == 1 and not share:
        return map_.masked_fill(~counts, -inf).amax((1, 2))
    if torch.compiler.is_exporting():
        return _mean_of_highest_counted(map_.masked_fill(~counts, -inf).flatten(1), counts.flatten(1), top, share)
    return stack([_mean_of_highest(m[c][None], top, share)[0] for m, c in zip(map_, counts, strict=True)])


def mean_score(values: Tensor, region: Tensor | None = None) -> Tensor:
    """Return the mean (B,) of maps (B, h, w), or of features (B, C, h, w), over what counts."""
    counts = at_grid(region, (values.shape[-2], values.shape[-1]))
    if counts is None:
        return values.mean(tuple(range(1, values.dim())))
    counts = counts if values.dim() == 3 else counts[:, None].expand_as(values)
    return (values * counts).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)


def within(values: Tensor, region: Tensor | None) -> Tensor:
    """Return what lies at the positions that count: rows (N, C) of features (B, C, h, w), or (N,) of maps (B, h, w).

    Where all of them count it is ``values`` as they are. If none does, as can be after a rotation, zeros are returned
    in the shape of ``values``, which teach nothing.
    """
    counts = at_grid(region, (values.shape[-2], values.shape[-1]))
    if counts is None:
        return values
    if not counts.any():
        return values * 0
    return values[counts] if values.dim() == 3 else values.permute(0, 2, 3, 1)[counts]


def rows_within(features: Tensor, region: Tensor | None) -> Tensor:
    """Return features (B, C, h, w) as rows (N, C), position after position, of the positions that count."""
    found = within(features, region)
    return flattened(found) if found.dim() == 4 else found


def counted_places(features: Tensor, region: Tensor | None) -> Tensor:
    """Return the indices (N,) of the rows of ``flattened`` features (B, C, h, w) whose positions count."""
    counts = at_grid(region, (features.shape[-2], features.shape[-1]))
    rows = features.shape[0] * features.shape[-2] * features.shape[-1]
    return arange(rows, device=features.device) if counts is None else counts.flatten().nonzero()[:, 0]


def masked(features: Tensor, region: Tensor | None) -> Tensor:
    """Return features (B, C, h, w), or maps (B, h, w), with zeros where positions do not count."""
    counts = at_grid(region, (features.shape[-2], features.shape[-1]))
    if counts is None:
        return features
    return features * (counts if features.dim() == 3 else counts[:, None])


def average_pooled(features: Tensor, region: Tensor | None) -> Tensor:
    """Return the mean (B, C) of features (B, C, h, w) over the positions that count."""
    counts = at_grid(region, (features.shape[-2], features.shape[-1]))
    if counts is None:
        return features.mean((2, 3))
    return (features * counts[:, None]).sum((2, 3)) / counts.sum((1, 2)).clamp(min=1)[:, None]


def max_pooled(features: Tensor, region: Tensor | None) -> Tensor:
    """Return the maximum (B, C) of features (B, C, h, w) over the positions that count."""
    counts = at_grid(region, (features.shape[-2], features.shape[-1]))
    return (features if counts is None else features.masked_fill(~counts[:, None], -inf)).amax((2, 3))


def moved_alike(move: Callable[[Tensor], Tensor], image: Tensor, region: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return images (B, C, H, W) that ``move`` rotates or warps, whatever their channels are, and their region."""
    if region is None:
        return move(image), None
    both = move(cat([image, region[:, None].to(image)], 1))
    return both[:, :-1], both[:, -1] >= HALF


def joined(*parts: tuple[Tensor, Tensor | None]) -> Tensor | None:
    """Return the region of several batches, one after the other, each given as (images (B, C, H, W), region)."""
    if all(region is None for _, region in parts):
        return None
    return cat([ones_like(image[:, 0], dtype=boolean) if r is None else r for image, r in parts])


def _mean_of_highest(scores: Tensor, top: int, share: float | Fraction) -> Tensor:
    """Return the mean (B,) of the highest of scores (B, N)."""
    count = max(1, int(share * scores.shape[1])) if share else min(top, scores.shape[1])
    return scores.topk(count, dim=1).values.mean(1)


def _mean_of_highest_counted(scores: Tensor, counts: Tensor, top: int, share: float | Fraction) -> Tensor:
    """Return what :func:`_mean_of_highest` does for rows (B, N) with -inf where ``counts`` (B, N) is false.

    An exported graph cannot select values by a mask, because their number would follow from the mask.
    """
    total = counts.sum(1, keepdim=True)  # (B, 1)
    if not share:
        values = scores.topk(min(top, scores.shape[1]), dim=1).values
        number = total.clamp(max=top)
    else:
        values = scores.sort(dim=1, descending=True).values
        part = total * share.numerator // share.denominator if isinstance(share, Fraction) else total.double() * share
        number = part.long()
    taken = arange(values.shape[1], device=values.device) < number.clamp(min=1)
    return values.where(taken, 0).sum(1) / taken.sum(1)
