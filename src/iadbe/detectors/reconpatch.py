"""Patch features are first drawn together or pushed apart by how alike they are, then remembered as in PatchCore.

Paper: Hyun et al., "ReConPatch: Contrastive Patch Representation Learning for Industrial Anomaly Detection", WACV
    2024, 2305.16713. A linear map f is learnt, with a second one g behind it. A slowly following copy of both says
    how alike two patches are: by their distance, and by how many nearest neighbours they share. The relaxed
    contrastive loss of Kim et al. (CVPR 2022) brings the distances of g(f(x)) in line; the memory holds f(x).
Differs: a step compares at most ``patches`` patches, drawn from a batch of images (the paper does not tell how many
    meet); neighbours shared count for neighbours only and are averaged over the mutual ones among the nearest half,
    as in Kim et al.; layers are stacked as they are (with ``embedding=1024`` averaged to 1024 values, as in the paper)
    and brought to the level of a ResNet's, for which spread and learning rate were chosen; the coreset is greedy and
    exact; an image's score is its largest patch distance, not weighed again.
Numbers: MVTec AD, WRN50-2, 1 %, 224: image AUROC 99.6, pixel AUROC 98.1 (the paper's).
    Measured here with ResNet-18 at 256, 10 epochs: bottle 100.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from timm.optim.adamp import AdamP
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patch_embedding import embedded
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.rescale import Level
from iadbe.layers.memory_bank.nearest_neighbours import Searched
from iadbe.layers.memory_bank.patch_bank import Collected
from iadbe.layers.training.feature_cache import Held
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction


class ReConPatch(Detector):
    """Memory bank of patch features in a space learnt by contrast."""

    paper = "Hyun et al., ReConPatch: Contrastive Patch Representation Learning, WACV 2024, arXiv 2305.16713"
    year = 2024
    kind = "memory bank"
    can = frozenset({"localise"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "embedding": 1024}

    bank: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        dims: int = 512,
        contrast_dims: int = 1024,
        epochs: int = 120,
        learning_rate: float = 1e-5,
        batch: int = 8,
        patches: int = 512,
        neighbours: int = 5,
        balance: float = 0.5,
        spread: float = 1.0,
        margin: float = 1.0,
        coreset: float = 0.01,
        projection: int = 128,
        embedding: int = 0,
        sigma: float = 4.0,
    ) -> None:
        """Choose backbone and bank, and how the space is learnt.

        Args:
            backbone: any timm model
            layers: layers whose features are stacked, on the grid of the first
            weights: a file, auto or none
            dims: values of f, in which patches are remembered
            contrast_dims: values of g, in which they are compared while f is learnt
            epochs: how often every training image is shown
            learning_rate: of AdamP with weight decay 0.01, falling to 0 along a cosine
            batch: images per step
            patches: of a batch that are compared with one another, at most
            neighbours: nearest patches, itself among them, by which the company of a patch is judged
            balance: weight of likeness by distance, from 0 to 1; the rest is for likeness by company
            spread: squared distance at which likeness has fallen to 1/e
            margin: distance, in units of the mean, from which unlike patches leave each other alone
            coreset: share of the training patches that the bank keeps, above 0 and up to 1
            projection: dimensions in which the coreset is chosen (0: all)
            embedding: values per patch after adaptive average pooling (0: the layers as they are)
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if min(dims, contrast_dims, epochs, batch, neighbours, patches - 1) < 1:
            raise BadConfig("dims, contrast_dims, epochs, batch and neighbours must be at least 1, patches at least 2.")
        if min(learning_rate, spread, margin) <= 0:
            raise BadConfig("learning_rate, spread and margin must be above 0.")
        if not 0 < coreset <= 1 or not 0 <= balance <= 1:
            raise BadConfig(f"coreset is a share in (0, 1] and balance one in [0, 1], not {coreset} and {balance}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.dims, self.contrast_dims, self.epochs, self.learning_rate = dims, contrast_dims, epochs, learning_rate
        self.batch, self.patches, self.neighbours, self.balance = batch, patches, neighbours, balance
        self.spread, self.margin, self.share, self.projection = spread, margin, coreset, projection
        self.embedding, self.sigma = embedding, sigma
        self.level = Level(0.2)
        self.space = nn.Linear(embedding or sum(self.backbone.channels), dims)  # f
        self.register_buffer("bank", torch.empty(0))  # (M, dims)
        self._searched = Searched()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        held = Held(lambda batch: [self._raw(batch)])
        self.level.learn(held(batch)[0] for batch in train.batches(16))
        self._learn(train, held, rng)
        patches = Collected(train, lambda batch: self._mapped(held(batch)[0]), self.projection, generator(rng))
        self.bank = patches.take(patches.coreset(self.share, rng).sort().values)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        features = self._mapped(self._raw(batch))  # (B, dims, h, w)
        distance, _ = self._searched(self.bank).nearest(flattened(features))
        scores = distance.view(len(features), *features.shape[2:])
        return Prediction(scores.amax((1, 2)), upsampled(scores, batch.image.shape[-2:], self.sigma))

    def _learn(self, train: Images, held: Held, rng: np.random.Generator) -> None:
        with seeded(rng):
            self.space = nn.Linear(self.space.in_features, self.dims).to(train.device)
            head = nn.Linear(self.dims, self.contrast_dims).to(train.device)  # g
        network, source = nn.Sequential(self.space, head), generator(rng)
        slow = copy.deepcopy(network).requires_grad_(False)
        optimizer = AdamP(network.parameters(), self.learning_rate, weight_decay=0.01)
        steps = self.epochs * -(-len(train) // self.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
            rows = flattened(self.level(held(batch)[0]))
            some = torch.randperm(len(rows), generator=source)[: self.patches].to(rows.device)
            alike = likeness(slow(rows[some]), self.neighbours, self.balance, self.spread)
            step(optimizer, contrast(network(rows[some]), alike, self.margin))
            schedule.step()
            for old, new in zip(slow.parameters(), network.parameters(), strict=True):
                old.lerp_(new.detach(), 0.1)

    def _raw(self, batch: Batch) -> Tensor:
        """Return the backbone's vector per position: (B, D, h, w)."""
        return embedded(self.backbone(batch), self.embedding)

    @torch.no_grad()
    def _mapped(self, raw: Tensor) -> Tensor:
        """Return f of each position: (B, dims, h, w)."""
        return self.space(self.level(raw).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def likeness(points: Tensor, k: int, balance: float, spread: float) -> Tensor:
    """Return how alike points (N, D) are, (N, N), between 0 and 1: by distance, and by the company they keep."""
    square = _squares(points)
    return balance * (-square / spread).exp() + (1 - balance) * company(square, k)


def company(square: Tensor, k: int) -> Tensor:
    """Return how many nearest neighbours points share, (N, N), between 0 and 1, given their squared distances (N, N).

    A point is one of its own ``k`` nearest. First, a neighbour's likeness is the share of neighbours in common, and
    any other point's is 0. Then each point takes the mean of this over those of its nearest half that have it among
    theirs, and of both directions the mean is taken.
    """
    near, closest = _near(square, k), _near(square, max(1, k // 2))
    shared = near * (near @ near.T) / near.sum(1, keepdim=True)
    mutual = closest * closest.T
    expanded = mutual @ shared / mutual.sum(1, keepdim=True)
    return (expanded + expanded.T) / 2


def contrast(points: Tensor, alike: Tensor, margin: float) -> Tensor:
    """Return the relaxed contrastive loss () of points (N, D) that should be as ``alike`` (N, N) says."""
    distance = (_squares(points) + 1e-12).sqrt()
    relative = distance / distance.mean(1, keepdim=True)
    terms = alike * relative.square() + (1 - alike) * (margin - relative).clamp(min=0).square()
    return terms.sum(1).mean()


def _squares(points: Tensor) -> Tensor:
    """Return squared distances (N, N); from each point to itself exactly 0."""
    points = points - points.mean(0)
    lengths = points.square().sum(1)
    square = (lengths[:, None] + lengths - 2 * points @ points.T).clamp(min=0)
    return square * (1 - torch.eye(len(points), device=points.device))


def _near(square: Tensor, k: int) -> Tensor:
    """Return 1 where a point is one of another's ``k`` nearest, 0 elsewhere: (N, N), one row per point."""
    order = square.clone().fill_diagonal_(-1)  # a point comes first, whatever equals it
    chosen = order.topk(min(k, len(order)), largest=False).indices
    return torch.zeros_like(square).scatter_(1, chosen, 1)
