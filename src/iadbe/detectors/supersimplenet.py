"""Noise in Perlin-shaped regions of the features teaches one head where, and another whether, something is wrong.

Paper: Rolih et al., "SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and Reliable Surface Defect
    Detection", ICPR 2024, 2408.03143, its unsupervised mode. Layers at twice the first one's grid, averaged over 3 x 3
    and adapted by a linear layer; a batch stands twice, half of the copies gets noise of deviation 0.015 where Perlin
    noise exceeds a threshold; the segmentation head learns by a truncated L1 and a focal loss, the classification head
    (a 5 x 5 convolution over features and map, mean and maximum) by a focal loss that does not reach the map.
Differs: features are first multiplied by one number that gives them a root mean square of 0.1, without which the noise
    would mean another thing with every backbone (``rescale=False``: as they are); scores are not squashed by a sigmoid,
    which keeps their order; labelled anomalies are not learnt from.
Numbers: MVTec AD, WRN50-2, 256: image AUROC 98.4, AUPRO about 91 (mean of five runs).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.discriminator import Discriminator
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

MARGIN = 0.5


class SuperSimpleNet(Detector):
    """Segmentation and classification heads, trained against noise in regions of the features."""

    paper = "Rolih et al., SuperSimpleNet: Unifying Unsupervised and Supervised Learning, ICPR 2024, arXiv 2408.03143"
    year = 2024
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "rescale": False}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        noise: float = 0.015,
        threshold: float = 0.2,
        rescale: bool = True,
        width: int = 1024,
        epochs: int = 300,
        batch: int = 32,
        sigma: float = 4.0,
    ) -> None:
        """Choose features, noise, and how long the heads learn.

        Args:
            backbone: any timm model
            layers: layers whose features are stacked, on twice the grid of the first
            weights: a file, auto or none
            noise: deviation of the Gaussian noise on adapted features
            threshold: of the Perlin noise, above which a region is disturbed (the paper takes 0.6 for VisA)
            rescale: bring features to a root mean square of 0.1
            width: values of the segmentation head's hidden layer; the classification head has an eighth
            epochs: how often every training image is shown
            batch: images per step
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if min(width, epochs, batch) < 1 or noise <= 0:
            raise BadConfig(f"width {width}, epochs {epochs}, batch {batch} and noise {noise} must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        self.noise, self.threshold, self.rescale = noise, threshold, rescale
        self.width, self.epochs, self.batch, self.sigma = width, epochs, batch, sigma
        self._begin()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._begin()
        self.to(train.device)
        cached = FeatureCache(self.backbone)
        if self.rescale:
            self.level.fit(raised(cached(batch)) for batch in train.batches(16))
        source = generator(rng, train.device)
        optimizer, rate = self._optimizer(-(-len(train) // self.batch) * self.epochs)
        self.head.train()
        self.where.train()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
            disturbed, mask = self._disturbed(self._adapted(cached(batch)), source)
            map_, score = self._judged(disturbed)
            label = mask.flatten(1).any(1)
            loss = truncated(map_, mask) + focal_loss(map_, mask) + focal_loss(score, label)
            step(optimizer, loss)
            rate.step()
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        map_, score = self._judged(self._adapted(self.backbone(batch)))
        return Prediction(score, upsampled(map_, batch.image.shape[-2:], self.sigma))

    def _begin(self) -> None:
        """Make untrained layers, with weights from torch's generator."""
        dim = sum(self.backbone.channels)
        self.level = Rescale()
        self.adaptor = nn.Linear(dim, dim)
        self.where = Discriminator(dim, self.width)
        head = max(1, self.width // 8)
        self.head = nn.Sequential(nn.Conv2d(dim + 1, head, 5, padding=2), nn.BatchNorm2d(head), nn.ReLU(inplace=True))
        self.whether = nn.Linear(2 * head + 2, 1)
        for layer in (self.adaptor, self.head[0], self.whether):
            nn.init.xavier_normal_(layer.weight)

    def _optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        heads = [*self.where.parameters(), *self.head.parameters(), *self.whether.parameters()]
        groups = [{"params": self.adaptor.parameters(), "lr": 1e-4}, {"params": heads, "weight_decay": 1e-5}]
        optimizer = torch.optim.AdamW(groups, 2e-4)
        late = [max(1, round(share * steps)) for share in (0.8, 0.9)]
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, late, 0.4)

    def _adapted(self, layers: list[Tensor]) -> Tensor:
        """Return adapted features on twice the first layer's grid: (B, 2h, 2w, D)."""
        return self.adaptor(raised([self.level(f) for f in layers]).permute(0, 2, 3, 1))

    def _disturbed(self, features: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return features (B, h, w, D) twice, with noise in regions of about half of them, and these (2B, h, w)."""
        twice = torch.cat([features, features])
        count, height, width, dim = twice.shape
        mask = perlin_masks(count, height, width, source, self.threshold)[:, 0]
        mask &= torch.rand(count, 1, 1, generator=source, device=source.device) <= 0.5
        rows = mask.flatten().nonzero()[:, 0]
        noise = torch.randn(len(rows), dim, generator=source, device=source.device)
        twice.view(-1, dim).index_add_(0, rows, noise, alpha=self.noise)
        return twice, mask

    def _judged(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return for adapted features (B, h, w, D) the map (B, h, w) and the score (B,)."""
        map_ = self.where(features.flatten(0, 2)).view(features.shape[:3])
        seen = map_.detach()[:, None]
        weight, bias = self.head[0].weight, self.head[0].bias
        # the convolution of features and map stacked, without stacking them
        near = F.conv2d(features.permute(0, 3, 1, 2), weight[:, :-1], bias, padding=2)
        found = self.head[1:](near + F.conv2d(seen, weight[:, -1:], padding=2))
        pooled = [p for part in (found, seen) for p in (part.amax((2, 3)), part.mean((2, 3)))]
        return map_, self.whether(torch.cat(pooled, 1))[:, 0]


def raised(layers: list[Tensor]) -> Tensor:
    """Bring layers to twice the grid of the first, bilinear, average over 3 x 3 and stack them: (B, D, 2h, 2w)."""
    height, width = (2 * side for side in layers[0].shape[-2:])
    return torch.cat([_line(f.shape[-2], height, f) @ f @ _line(f.shape[-1], width, f).T for f in layers], 1)


def _line(before: int, after: int, like: Tensor) -> Tensor:
    """Return (after, before): interpolation of a line and then the mean of three, zero outside.

    Both are separable; as a product of matrices they are several times quicker on a processor.
    """
    single = torch.eye(before, dtype=like.dtype, device=like.device)[None]
    return F.avg_pool1d(F.interpolate(single, after, mode="linear", align_corners=False), 3, 1, 1)[0].T


def truncated(map_: Tensor, mask: Tensor) -> Tensor:
    """Ask for at most -0.5 outside the mask and at least 0.5 inside, each side by its mean."""
    outside, inside = (MARGIN + map_[~mask]).clamp(min=0), (MARGIN - map_[mask]).clamp(min=0)
    return torch.stack([side.mean() for side in (outside, inside) if len(side)]).sum()
