"""PatchCore on colour features and on fast point feature histograms (FPFH) of the point cloud, concatenated.

Paper: Horwitz and Hoshen, "Back to the Feature: Classical 3D Features are (Almost) All You Need for 3D Anomaly
    Detection", CVPR workshops 2023, 2203.05550. Each pixel of the cloud has a FPFH of its 100 nearest points (normals:
    30). Histograms and the layers of a backbone are averaged to one grid and concatenated. The bank is a coreset of all
    training patches; the map is the distance to the nearest, an image's score the largest distance, re-weighted.
    Before, the plane under the part is found in the image's border by RANSAC, and its pixels, and all but the largest
    cluster of points, are blanked in image and cloud.
Differs:
    * FPFH are ours, equal to Open3D's to rounding (a relative 5e-5 on a cloud of 48812 points). Normals face the
      camera; in the authors' code their signs are arbitrary. Open3D itself takes 900 MB and libraries of the system.
    * The authors concatenate raw values. ``balance`` first scales colour features to the histograms' variance, because
      networks differ thirtyfold in the size of their features.
    * Clusters are those of touching cubes of 6 mm, not DBSCAN's within 6 mm; the cloud is cleaned in the view, not at
      its full size, and not padded to a square.
    * An image's score is its largest patch distance. ``neighbours=3`` re-weights it as the authors do, by a factor that
      depends on which patches the coreset kept nearby: on toy castings at 64 it was 0.55 to 0.95, and image AUROC 40.8
      to 75.3 over four coresets, where the largest distance gave 56.4 to 61.4 (fpfh alone: 82.8 to 85.6).
    * The greedy coreset is exact, after a random projection. The map is not rounded to 8 bits when it is smoothed.
Numbers: MVTec 3D-AD, image AUROC, pixel AUROC and AUPRO: colours 78.5, 96.6, 87.6; FPFH 75.3, 98.0, 92.8; both 87.3,
    99.3, 96.4 (the authors' README, without pre-processing; with it 87.8, 99.2, 95.9 for both). Measured here on the
    toy casting at 128, embedded network, ``neighbours=3``: both 80.8, 98.9, 96.2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig, BadDetector
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.fpfh import BINS, fpfh, neighbours, normals
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.point_cloud import border_plane, largest_cluster, plane_distance
from iadbe.layers.features.region import counted, rows_within
from iadbe.layers.memory_bank.nearest_neighbours import CachedIndex
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

NORMAL_POINTS, FEATURE_POINTS = 30, 100  # neighbours, at most
TRIALS, SAMPLED = 1000, 50  # of RANSAC: planes, and points that each is fitted to
AGREE, BLANKED, CLUSTER = 0.004, 0.005, 0.006  # metres: RANSAC's tolerance, the plane's reach, side of a cube
BALANCED = 32  # training images whose features are compared, about


class BTF(Detector):
    """Memory bank of colour features and point feature histograms."""

    paper = "Horwitz and Hoshen, Back to the Feature: Classical 3D Features, CVPR workshops 2023, arXiv 2203.05550"
    year = 2023
    kind = "memory bank"
    needs = frozenset({"image", "depth"})
    can = frozenset({"localise", "merge"})
    paper_view = {"resize": 224}
    paper_params = {"backbone": "wide_resnet50_2.racm_in1k", "balance": False, "neighbours": 3}
    added = {"neighbours": 3}

    bank: Tensor
    draws: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        features: Literal["both", "fpfh", "rgb"] = "both",
        plane: bool = True,
        balance: bool = True,
        voxel: float = 0.05,
        coreset: float = 0.1,
        projection: int = 128,
        sigma: float = 4.0,
        neighbours: int = 1,
    ) -> None:
        """Choose the features and the memory bank.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the first
            weights: a file, auto or none
            features: both, fpfh (the cloud alone) or rgb (the image alone, in which the plane is blanked)
            plane: blank the plane under the part, and all but the largest cluster of points
            balance: scale the colour features so that they vary as much as the histograms
            voxel: normals come from points within 2 voxels, histograms from 5, in the unit of the depth
            coreset: share of the training patches in the memory bank, in (0, 1]
            projection: dimensions of the random projection for the coreset (0: none); scores use all dimensions
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
            neighbours: bank patches that re-weight the image's score, the nearest included; 1: the largest distance
        """
        super().__init__()
        if not 0 < coreset <= 1 or voxel <= 0 or neighbours < 1:
            raise BadConfig(f"coreset {coreset} is to be in (0, 1], voxel {voxel} and neighbours {neighbours} above 0.")
        if features not in ("both", "fpfh", "rgb"):
            raise BadConfig(f"features are both, fpfh or rgb, not {features!r}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.features, self.plane, self.balance, self.voxel = features, plane, balance, voxel
        self.share, self.projection, self.sigma, self.neighbours = coreset, projection, sigma, neighbours
        self.register_buffer("bank", torch.empty(0))  # (M, D)
        self.register_buffer("draws", torch.empty(0))  # (TRIALS, SAMPLED): the same for every image
        self.register_buffer("scale", torch.ones(()))  # of the colour features
        self._index = CachedIndex()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        source = generator(rng)
        self.draws = torch.rand(TRIALS, SAMPLED, generator=source).to(train.device)
        known: dict[str, Tensor] = {}  # histograms of the training images, which take longest
        self.scale = self._balanced(train, known)
        patches = PatchBank(train, lambda batch: self._patches(batch, known), self.projection, source)
        self.bank = patches.take(patches.coreset(self.share, rng).sort().values)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        features = self._patches(batch)  # (B, D, h, w)
        images, _, height, width = features.shape
        rows = flattened(features)
        distance, index = self._index(self.bank).nearest(rows)
        scores = distance[:, 0].view(images, height, width)
        own = counted(scores, batch.region).flatten(1)
        worst = own.argmax(1) + torch.arange(images, device=rows.device) * (height * width)
        score = self._reweighted(own.amax(1), rows[worst], index[worst, 0])
        return Prediction(score, upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region))

    def merge(self, others: Sequence[Self]) -> None:
        """Concatenate the memory banks; all colour features are scaled as those of the first client.

        Equal patches are kept once, since duplicates would count among the neighbours that re-weight.
        """
        first = others[0]
        self.draws, self.scale = first.draws.clone(), first.scale.clone()
        banks = [o.bank.clone() for o in others]
        if self.features == "both":
            for bank, other in zip(banks, others, strict=True):
                bank[:, : -3 * BINS] *= first.scale / other.scale
        bank = torch.cat(banks)
        unique, which = bank.unique(dim=0, return_inverse=True)
        place = torch.arange(len(bank), device=bank.device)
        first_place = place.new_full((len(unique),), len(bank)).scatter_reduce_(0, which, place, "amin")
        self.bank = bank[first_place.sort().values]

    def _balanced(self, train: Images, known: dict[str, Tensor]) -> Tensor:
        """Return the factor by which colour features vary as much as histograms, on up to 32 training images."""
        scale = torch.ones((), device=train.device)
        if not self.balance or self.features != "both":
            return scale
        self.scale = scale
        some = train.subset(range(0, len(train), -(-len(train) // BALANCED)))
        rows = torch.cat([rows_within(self._patches(batch, known), batch.region) for batch in some.batches(8)])
        colour, shape = rows.var(0, correction=0).split([rows.shape[1] - 3 * BINS, 3 * BINS])
        ratio = shape.sum() / colour.sum().clamp_min(torch.finfo(rows.dtype).tiny)
        return ratio.sqrt() if 0 < float(ratio) < math.inf else scale

    def _patches(self, batch: Batch, known: dict[str, Tensor] | None = None) -> Tensor:
        """Return the patch features: (B, D, h, w), colours before histograms. ``known``: histograms by image id."""
        if batch.points is None:
            raise BadDetector(
                "btf needs x and y of each pixel beside its depth. The data give depth alone; a dataset's class states "
                "its camera as focal_length, in widths of the image."
            )
        seen, cloud = self._cleaned(batch, batch.points) if self.plane else (batch, batch.points)
        grid = tuple(-(-side // self.backbone.strides[0]) for side in batch.image.shape[-2:])
        parts: list[Tensor] = []
        if self.features != "fpfh":
            layers = self.backbone(seen)
            grid = tuple(layers[0].shape[-2:])
            parts.append(torch.cat([_pooled(f, grid) for f in layers], 1) * self.scale)
        if self.features != "rgb":
            parts.append(self._histograms(batch.id, cloud, grid, known))
        return torch.cat(parts, 1)

    def _histograms(
        self, ids: Sequence[str], clouds: Tensor, grid: tuple[int, ...], known: dict[str, Tensor] | None
    ) -> Tensor:
        """Return the mean histograms of each position of the grid: (B, 33, h, w)."""
        found = []
        for name, cloud in zip(ids, clouds, strict=True):
            pooled = None if known is None else known.get(name)
            if pooled is None:
                pooled = _pooled(histogram_map(cloud, self.voxel)[None], grid)[0]
                if known is not None:
                    known[name] = pooled
            found.append(pooled)
        return torch.stack(found)

    def _cleaned(self, batch: Batch, clouds: Tensor) -> tuple[Batch, Tensor]:
        """Blank the plane, and all but the largest cluster, in images (black) and clouds (nan)."""
        blank = torch.stack([self._background(cloud) for cloud in clouds])  # (B, H, W)
        keys = None
        if batch.keys is not None:
            marks = [hashlib.blake2b(np.packbits(b.cpu().numpy()).tobytes(), digest_size=8).hexdigest() for b in blank]
            keys = tuple(f"{key}-{mark}" for key, mark in zip(batch.keys, marks, strict=True))
        image = batch.image.masked_fill(blank[:, None], 0)
        return replace(batch, image=image, keys=keys), clouds.masked_fill(blank[:, None], torch.nan)

    def _background(self, cloud: Tensor) -> Tensor:
        """Return (H, W) bool: measured pixels of the plane and of small clusters."""
        measured = cloud.isfinite().all(0)
        keep = measured
        plane = border_plane(cloud, self.draws, AGREE)
        if plane is not None:
            keep = measured & (plane_distance(cloud, plane) >= BLANKED)
        return measured & ~largest_cluster(cloud, keep, CLUSTER)

    def _reweighted(self, score: Tensor, patch: Tensor, hit: Tensor) -> Tensor:
        """Return w s (B,), w = 1 - exp(s / √D) / Σ exp(d / √D): the authors' re-weighting of the largest distance s.

        d are the distances of the patch (B, D) to the nearest neighbours in the bank of its own nearest, ``hit`` (B,),
        itself left out.
        """
        count = min(self.neighbours, len(self.bank))
        if count < 2:
            return score
        _, around = self._index(self.bank).nearest(self.bank[hit], count)
        distances = (patch[:, None] - self.bank[around[:, 1:]]).square().sum(-1).sqrt() / math.sqrt(patch.shape[1])
        return score * (1 - (score / math.sqrt(patch.shape[1]) - distances.logsumexp(1)).exp())


def histogram_map(cloud: Tensor, voxel: float) -> Tensor:
    """Return the FPFH of every pixel of a cloud (3, H, W), 0 where nothing was measured: (33, H, W)."""
    measured = cloud.isfinite().all(0)
    map_ = cloud.new_zeros(3 * BINS, *measured.shape)
    if bool(measured.any()):
        points = cloud[:, measured].T.contiguous()
        index, distance = neighbours(points, FEATURE_POINTS, 5 * voxel)
        near = distance[:, :NORMAL_POINTS]
        near = near.masked_fill(near > 2 * voxel, torch.inf)
        map_[:, measured] = fpfh(points, normals(points, index[:, :NORMAL_POINTS], near), index, distance).T
    return map_


def _pooled(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Average 3 x 3 neighbourhoods of (B, C, H, W), without padding, and then to a grid: (B, C, h, w)."""
    kernel = min(3, *features.shape[-2:])
    return F.adaptive_avg_pool2d(F.avg_pool2d(features, kernel, stride=1), tuple(grid))
