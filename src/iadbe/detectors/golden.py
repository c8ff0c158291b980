"""A comparison with good images, without learning; the score is one minus SSIM or normalised cross-correlation.

Paper: none, a baseline: the golden template of classical inspection. The reference is the mean of all good images, or
    the good image nearest to the test image in Euclidean distance. Similarity at each pixel is SSIM (Wang et al., IEEE
    TIP 2004) or local normalised cross-correlation. The map is one minus the similarity, averaged over channels and
    smoothed. An image's score is the largest value of its map.
Differs:
    * Images are compared as they are, without registration. Parts must lie at the same place in all images.
    * ``reference=nearest`` keeps a random subset of at most ``most`` good images.
Numbers: measured here at 128, image AUROC of bottle: 92.0 (mean) and 96.1 (nearest) with SSIM, 88.4 and 93.9 with
    normalised cross-correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import gaussian_blur
from iadbe.layers.features.region import image_score, masked
from iadbe.layers.features.similarity import cross_correlation, ssim
from iadbe.layers.memory_bank.nearest_neighbours import nearest_neighbours
from iadbe.types import Prediction

BATCH = 16


class Golden(Detector):
    """Difference to the mean or to the nearest good image."""

    kind = "baseline"
    can = frozenset({"localise", "merge"})

    references: Tensor
    count: Tensor

    def __init__(
        self,
        reference: Literal["mean", "nearest"] = "mean",
        similarity: Literal["ssim", "ncc"] = "ssim",
        window: int = 11,
        most: int = 100,
        sigma: float = 4.0,
    ) -> None:
        """Choose reference and similarity.

        Args:
            reference: the mean of all good images, or the nearest of them
            similarity: ssim, or ncc (normalised cross-correlation), which ignores brightness and contrast
            window: side of the Gaussian window of the similarity, in pixels, odd
            most: maximum number of good images that are kept for reference=nearest
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if reference not in ("mean", "nearest") or similarity not in ("ssim", "ncc"):
            raise BadConfig(
                f"reference is mean or nearest and similarity ssim or ncc, not {reference!r} and {similarity!r}."
            )
        if window < 3 or window % 2 == 0 or most < 1:
            raise BadConfig(f"window is odd and at least 3, most at least 1, not {window} and {most}.")
        self.reference, self.similarity, self.window = reference, similarity, window
        self.most, self.sigma = most, sigma
        self.register_buffer("references", torch.empty(0))  # (R, 3, H, W); R is 1 for the mean
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # number of good images

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        if not len(train):
            raise BadConfig("there is no normal image to fit on. Give at least one.")
        if self.reference == "nearest" and len(train) > self.most:
            train = train.subset(sorted(rng.choice(len(train), self.most, replace=False).tolist()))
        parts: list[Tensor] = []
        seen = torch.zeros((), device=train.device)  # number of images in which a pixel counts
        for batch in train.batches(BATCH):
            shown = masked(batch.image, batch.region)
            parts.append(shown.sum(0, keepdim=True) if self.reference == "mean" else shown)
            seen = seen + masked(torch.ones_like(batch.image[:, 0]), batch.region).sum(0)
            progress.report("fit", min(len(parts) * BATCH, len(train)), len(train))
        images = torch.cat(parts)
        self.references = images.sum(0, keepdim=True) / seen.clamp(min=1) if self.reference == "mean" else images
        self.count = torch.full_like(self.count, len(train))

    def predict(self, batch: Batch) -> Prediction:
        image = batch.image
        if image.shape[1:] != self.references.shape[1:]:
            raise BadConfig(
                f"golden has references of {self.references.shape[3]} x {self.references.shape[2]} pixels, "
                f"not {image.shape[3]} x {image.shape[2]}. Use the view of the fit."
            )
        compare = ssim if self.similarity == "ssim" else cross_correlation
        image = masked(image, batch.region)
        nearest = masked(self._nearest(image, batch.region), batch.region)
        difference = 1 - compare(image, nearest, min(self.window, *_odd(image.shape[2:])))
        map_ = gaussian_blur(difference.mean(1, keepdim=True), self.sigma, region=batch.region)[:, 0]
        return Prediction(image_score(map_, batch.region), map_)

    def merge(self, others: Sequence[Self]) -> None:
        """Average the means, weighted by their numbers of images, or concatenate the references."""
        counts = torch.stack([other.count for other in others])
        if self.reference == "mean":
            means = torch.cat([other.references for other in others])
            weights = (counts / counts.sum()).to(means).view(-1, 1, 1, 1)
            self.references = (weights * means).sum(0, keepdim=True)
        else:
            self.references = torch.cat([other.references for other in others])
        self.count = counts.sum()

    def _nearest(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the reference (B, 3, H, W) of each image, the nearest in Euclidean distance of what counts."""
        if len(self.references) == 1:
            return self.references.expand_as(image)
        if region is not None and torch.compiler.is_exporting():
            return self.references[self._nearest_of_what_counts(image, region)]
        if region is not None:
            each = (self.references * counts for counts in region)
            pairs = zip(image, each, strict=True)
            return torch.cat([own[nearest_neighbours(x.flatten()[None], own.flatten(1))[1][0]] for x, own in pairs])
        index = nearest_neighbours(image.flatten(1), self.references.flatten(1))[1][:, 0]
        return self.references[index]

    def _nearest_of_what_counts(self, image: Tensor, region: Tensor) -> Tensor:
        """Return the indices (B,) of the nearest references, by products of matrices, as an exported graph needs it."""
        centre = self.references.mean(0)
        rows, counts = ((image - centre) * region[:, None]).flatten(1), region[:, None].expand_as(image).flatten(1)
        others = (self.references - centre).flatten(1)
        return (counts.to(others) @ others.square().T - 2 * rows @ others.T).argmin(1)


def _odd(sides: Sequence[int]) -> list[int]:
    """Return the largest odd numbers up to these sides."""
    return [side - 1 + side % 2 for side in sides]
