"""A coreset of contrastively learnt patch features; the score is the distance to the nearest one.

Paper: Hyun et al., "ReConPatch: Contrastive Patch Representation Learning for Industrial Anomaly Detection", WACV
    2024, arXiv:2305.16713. A linear representation layer f and a projection layer g are trained. An EMA copy of both
    gives the similarity ω of two patches: pairwise similarity (from their distance) and contextual similarity (from
    shared nearest neighbours). The relaxed contrastive loss (Kim et al., CVPR 2022) adapts distances of g(f(x)) to ω.
    The memory bank holds f(x).
Differs:
    * A step compares at most ``patches`` patches from a batch of images. The paper does not give this number.
    * Contextual similarity counts shared neighbours for neighbours only, and is averaged over the mutual ones among
      the nearest half, as in Kim et al.
    * Layers are concatenated as they are. ``embedding=1024`` pools each patch to 1024 values as in the paper.
    * Features are scaled to a root mean square of 0.2, that of a ResNet, so that bandwidth and learning rate suit every
      backbone. ``rescale=False`` leaves them as they are, as the paper does.
    * The greedy coreset is exact. An image's score is its largest patch distance, without re-weighting.
Numbers: MVTec AD, WRN50-2, 1 %, 224: image AUROC 99.6, pixel AUROC 98.1 (the paper's).
    Measured here with ResNet-18 at 256, 10 epochs: bottle 100.
"""

from __future__ import annotations

import numpy as np
import torch
from timm.optim.adamp import AdamP
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.region import image_score, rows_within, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.memory_bank.nearest_neighbours import CachedIndex
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.layers.training.ema import EMA
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

DECAY = 0.9  # of the averaged copy of f and g


class ReConPatch(Detector):
    """Memory bank of contrastively learnt patch representations."""

    paper = "Hyun et al., ReConPatch: Contrastive Patch Representation Learning, WACV 2024, arXiv 2305.16713"
    year = 2024
    kind = "memory bank"
    can = frozenset({"localise"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "embedding": 1024, "rescale": False}
    renamed = {"balance": "alpha", "spread": "bandwidth"}
    added = {"rescale": True}
    renamed_tensors = {"space": "representation"}

    bank: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        dims: int = 512,
        contrast_dims: int = 1024,
        epochs: int = 120,
        learning_rate: float = 1e-5,
        batch: int = 8,
        patches: int = 512,
        neighbours: int = 5,
        alpha: float = 0.5,
        bandwidth: float = 1.0,
        margin: float = 1.0,
        coreset: float = 0.01,
        projection: int = 128,
        embedding: int = 0,
        rescale: bool = True,
        sigma: float = 4.0,
    ) -> None:
        """Choose backbone, memory bank and training.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the first
            weights: a file, auto or none
            dims: output dimensions of f, those of the memory bank
            contrast_dims: output dimensions of g, used in training only
            epochs: passes over the training images
            learning_rate: of AdamP with weight decay 0.01 and cosine decay to 0
            batch: images per step
            patches: maximum number of patches of a batch that are compared with one another
            neighbours: k of contextual similarity: nearest patches, including the patch itself
            alpha: α, weight of pairwise similarity in [0, 1]; 1 - α weights contextual similarity
            bandwidth: σ of pairwise similarity: squared distance at which it is 1/e
            margin: m, relative distance (1: the mean) beyond which dissimilar patches do not repel
            coreset: share of the training patches in the memory bank, in (0, 1]
            projection: dimensions of the random projection for the coreset (0: none)
            embedding: values per patch after adaptive average pooling (0: the layers as they are)
            rescale: scale features to a root mean square of 0.2
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(dims, contrast_dims, epochs, batch, neighbours, patches - 1) < 1:
            raise BadConfig("dims, contrast_dims, epochs, batch and neighbours must be at least 1, patches at least 2.")
        if min(learning_rate, bandwidth, margin) <= 0:
            raise BadConfig("learning_rate, bandwidth and margin must be above 0.")
        if not 0 < coreset <= 1 or not 0 <= alpha <= 1:
            raise BadConfig(f"coreset is a share in (0, 1] and alpha in [0, 1], not {coreset} and {alpha}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.dims, self.contrast_dims, self.epochs, self.learning_rate = dims, contrast_dims, epochs, learning_rate
        self.batch, self.patches, self.neighbours, self.alpha = batch, patches, neighbours, alpha
        self.bandwidth, self.margin, self.share, self.projection = bandwidth, margin, coreset, projection
        self.embedding, self.rescale, self.sigma = embedding, rescale, sigma
        self.level = Rescale(0.2)
        self.representation = nn.Linear(embedding or sum(self.backbone.channels), dims)  # f
        self.register_buffer("bank", torch.empty(0))  # (M, dims)
        self._index = CachedIndex()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        cached = FeatureCache(lambda batch: [self._patches(batch)])
        if self.rescale:
            self.level.fit(within(cached(batch)[0], batch.region) for batch in train.batches(16))
        self._learn(train, cached, rng)
        patches = PatchBank(train, lambda batch: self._represented(cached(batch)[0]), self.projection, generator(rng))
        self.bank = patches.take(patches.coreset(self.share, rng).sort().values)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        features = self._represented(self._patches(batch))  # (B, dims, h, w)
        distance, _ = self._index(self.bank).nearest(flattened(features))
        scores = distance.view(-1, *features.shape[2:])
        return Prediction(
            image_score(scores, batch.region),
            upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region),
        )

    def _learn(self, train: Images, cached: FeatureCache, rng: np.random.Generator) -> None:
        with seeded(rng):
            self.representation = nn.Linear(self.representation.in_features, self.dims).to(train.device)
            head = nn.Linear(self.dims, self.contrast_dims).to(train.device)  # g
        network, source = nn.Sequential(self.representation, head), generator(rng)
        ema = EMA(network, DECAY)
        optimizer = AdamP(network.parameters(), self.learning_rate, weight_decay=0.01)
        steps = self.epochs * -(-len(train) // self.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        state = (network, ema, optimizer, schedule, source)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=state):
            rows = self.level(rows_within(cached(batch)[0], batch.region))
            sample = torch.randperm(len(rows), generator=source)[: self.patches].to(rows.device)
            similar = similarity(ema.network(rows[sample]), self.neighbours, self.alpha, self.bandwidth)
            step(optimizer, relaxed_contrastive_loss(network(rows[sample]), similar, self.margin))
            schedule.step()
            ema.update()

    def _patches(self, batch: Batch) -> Tensor:
        """Return the patch features: (B, D, h, w)."""
        return patch_embedding(self.backbone(batch), self.embedding)

    @torch.no_grad()
    def _represented(self, patches: Tensor) -> Tensor:
        """Return f of patch features (B, D, h, w): (B, dims, h, w)."""
        return self.representation(self.level(patches).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def similarity(points: Tensor, k: int, alpha: float, bandwidth: float) -> Tensor:
    """Return ω (N, N) of points (N, D), in [0, 1]: α · pairwise + (1 - α) · contextual similarity."""
    square = _squared_distances(points)
    return alpha * (-square / bandwidth).exp() + (1 - alpha) * contextual_similarity(square, k)


def contextual_similarity(square: Tensor, k: int) -> Tensor:
    """Return the contextual similarity (N, N), in [0, 1], given squared distances (N, N).

    A point is one of its own ``k`` nearest neighbours. First, the similarity to a neighbour is the share of common
    neighbours, and to any other point 0. Then it is averaged over a point's mutual neighbours among the k/2 nearest
    (query expansion), and made symmetric.
    """
    near, closest = _neighbour_mask(square, k), _neighbour_mask(square, max(1, k // 2))
    shared = near * (near @ near.T) / near.sum(1, keepdim=True)
    mutual = closest * closest.T
    expanded = mutual @ shared / mutual.sum(1, keepdim=True)
    return (expanded + expanded.T) / 2


def relaxed_contrastive_loss(points: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Return the loss () of points (N, D) with similarity ω (N, N): ω δ² + (1 - ω) max(m - δ, 0)².

    δ is the distance divided by the mean distance of the row.
    """
    distance = (_squared_distances(points) + 1e-12).sqrt()
    relative = distance / distance.mean(1, keepdim=True)
    terms = similar * relative.square() + (1 - similar) * (margin - relative).clamp(min=0).square()
    return terms.sum(1).mean()


def _squared_distances(points: Tensor) -> Tensor:
    """Return the squared distances (N, N) of points (N, D), with an exact 0 on the diagonal."""
    points = points - points.mean(0)
    lengths = points.square().sum(1)
    square = (lengths[:, None] + lengths - 2 * points @ points.T).clamp(min=0)
    return square * (1 - torch.eye(len(points), device=points.device))


def _neighbour_mask(square: Tensor, k: int) -> Tensor:
    """Return 1 for the ``k`` nearest neighbours of each row's point, 0 elsewhere: (N, N)."""
    order = square.clone().fill_diagonal_(-1)  # a point comes first, even among duplicates
    chosen = order.topk(min(k, len(order)), largest=False).indices
    return torch.zeros_like(square).scatter_(1, chosen, 1)
