"""A coreset without outlying patches, the others weighted by LOF; the score is the weighted distance to the nearest.

Paper: Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022, arXiv:2403.14233. At
    every position, the patches of all training images are compared with one another. The 15 % with the largest outlier
    factor are discarded. The other patches keep their outlier factor, which multiplies distances to them.
Differs:
    * The greedy coreset is exact and holds kept patches only. The authors' code can start at a discarded one.
    * Layers are concatenated as they are. ``embedding=1024`` pools each patch to 1024 values, as there.
    * The local outlier factor has 5 neighbours, as the authors' code effectively uses. (Their scripts pass 6 under a
      name that the code ignores.)
    * As no label is used, it may also be fitted on the test images themselves, like MuSc. The paper does not do this.
    As in the authors' code, weights multiply squared distances (``squared``), ``nearest`` and ``gaussian`` weight by 1
    plus the distance, all three discriminators work on random projections, and an image's score is its largest patch
    score.
Numbers: MVTec AD, WRN50-2, 10 %, 224, the paper's: image AUROC 98.6, both without noise and with a noise ratio of 0.1.
    Measured here with ResNet-18, bottle: 100 at 256. At 128, with a third of the defective test images added to the
    training images: 99.6, and 81.3 when no patch is discarded or weighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.region import image_score
from iadbe.layers.memory_bank.lof import CHUNK, local_outlier_factor, pairwise_distances
from iadbe.layers.memory_bank.nearest_neighbours import CachedIndex
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.layers.statistics.gaussian import PositionGaussians
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction


class SoftPatch(Detector):
    """Memory bank of weighted patch features, for training images with unlabelled defects."""

    paper = "Jiang et al., SoftPatch: Unsupervised Anomaly Detection with Noisy Data, NeurIPS 2022, arXiv 2403.14233"
    year = 2022
    version = 2  # 2: weights multiply squared distances
    kind = "memory bank"
    can = frozenset({"localise", "merge", "transductive"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "embedding": 1024}

    added = {"squared": False}
    renamed_tensors = {"trust": "lof_weight"}

    bank: Tensor
    lof_weight: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        coreset: float = 0.1,
        threshold: float = 0.15,
        discriminator: Literal["lof", "nearest", "gaussian"] = "lof",
        neighbours: int = 5,
        soft: bool = True,
        squared: bool = True,
        projection: int = 128,
        embedding: int = 0,
        sigma: float = 4.0,
    ) -> None:
        """Choose backbone, memory bank and noise discriminator.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the first
            weights: a file, auto or none
            coreset: share of all training patches in the memory bank, in (0, 1]
            threshold: τ, the share of training patches with the largest outlier factors, which are discarded as noise
            discriminator: outlier factor at each position: lof, nearest or gaussian
            neighbours: k of the local outlier factor
            soft: whether distances are multiplied by the weight of the nearest bank patch
            squared: whether squared distances are weighted, as in the authors' code, or distances, as in the paper
            projection: dimensions of the random projection for outlier factors and coreset (0: none)
            embedding: values per patch after adaptive average pooling (0: the layers as they are)
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if not 0 < coreset <= 1 or not 0 <= threshold < 1:
            raise BadConfig(f"coreset is a share in (0, 1] and threshold one in [0, 1), not {coreset} and {threshold}.")
        if discriminator not in ("lof", "nearest", "gaussian") or neighbours < 1:
            known = "lof, nearest or gaussian"
            raise BadConfig(f"discriminator is {known} and neighbours 1 or more, not {discriminator}, {neighbours}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.share, self.threshold, self.discriminator = coreset, threshold, discriminator
        self.neighbours, self.soft, self.squared, self.projection = neighbours, soft, squared, projection
        self.embedding, self.sigma = embedding, sigma
        self.register_buffer("bank", torch.empty(0))  # (M, D)
        self.register_buffer("lof_weight", torch.empty(0))  # (M,): the outlier factor of each bank patch
        self._index = CachedIndex()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        patches = PatchBank(train, self._patches, self.projection, generator(rng))
        factor = self._outlier_factor(patches, train.device)
        counted = factor if patches.counts is None else factor[patches.counts]
        kept = (factor <= float(np.quantile(counted.numpy(), 1 - self.threshold))).nonzero()[:, 0]
        chosen = patches.coreset(self.share, rng, among=kept).sort().values
        self.bank, self.lof_weight = patches.take(chosen), factor[chosen].to(train.device)

    def predict(self, batch: Batch) -> Prediction:
        features = self._patches(batch)  # (B, D, h, w)
        distance, hit = self._index(self.bank).nearest(flattened(features))
        scores = distance[:, 0].square() if self.squared else distance[:, 0]
        scores = scores * self.lof_weight[hit[:, 0]] if self.soft else scores
        scores = scores.view(-1, *features.shape[2:])
        return Prediction(
            image_score(scores, batch.region),
            upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region),
        )

    def merge(self, others: Sequence[Self]) -> None:
        """Concatenate the memory banks. Each client has discarded the noise among its own images."""
        self.bank, self.lof_weight = (
            torch.cat(parts) for parts in ([o.bank for o in others], [o.lof_weight for o in others])
        )

    def _patches(self, batch: Batch) -> Tensor:
        """Return the patch features: (B, D, h, w)."""
        return patch_embedding(self.backbone(batch), self.embedding)

    def _outlier_factor(self, found: PatchBank, device: torch.device) -> Tensor:
        """Return the outlier factor (N,) of each patch among those at its position in all images; above 0.

        Patches that do not count have no part in it, and the factor 1.
        """
        values = found.projected.view(found.images, -1, found.projected.shape[1])  # (images, positions, D')
        if found.counts is None:
            return self._factors(values, device).flatten()
        counts = found.counts.view(values.shape[:2])
        factors = torch.ones(values.shape[:2])
        patterns, number = counts.T.unique(dim=0, return_inverse=True)  # positions that count in the same images
        for pattern, images in enumerate(patterns):
            if images.any():
                place = images.nonzero(), (number == pattern).nonzero()[:, 0]
                factors[place] = self._factors(values[place], device)
        return factors.flatten()

    def _factors(self, values: Tensor, device: torch.device) -> Tensor:
        """Return the outlier factors (images, positions) of values (images, positions, D')."""
        if self.discriminator == "gaussian":
            return 1 + _mahalanobis(values, (1, values.shape[1]), device).cpu()
        parts = values.transpose(0, 1).split(max(1, CHUNK // len(values) ** 2))
        scores = []
        for number, part in enumerate(parts):
            group = part.to(device)
            is_lof = self.discriminator == "lof"
            scores.append((local_outlier_factor(group, self.neighbours) if is_lof else 1 + _nearest(group)).cpu())
            progress.report("noise", number + 1, len(parts))
        return torch.cat(scores).T


def _nearest(groups: Tensor) -> Tensor:
    """Return the distance (G, N) of each point (G, N, D) to the nearest other point of its group; 0 without any."""
    if groups.shape[1] == 1:
        return groups.new_zeros(groups.shape[:2])
    apart = pairwise_distances(groups)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return apart.amin(2).to(groups.dtype)


def _mahalanobis(values: Tensor, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the Mahalanobis distance (N, P) of values (N, P, D) from the Gaussian of each position."""
    gaussians = PositionGaussians().to(device)
    batches = [part.transpose(1, 2).unflatten(2, grid) for part in values.split(16)]  # (n, D, h, w)
    for batch in batches:
        gaussians.add([batch.to(device)])
    gaussians.factorise()
    return torch.cat([gaussians.distance([batch.to(device)]) for batch in batches]).flatten(1)
