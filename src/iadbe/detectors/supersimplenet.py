"""Two heads segment and classify feature noise in Perlin-shaped regions; their logits are the score.

Paper: Rolih et al., "SuperSimpleNet: Unifying Unsupervised and Supervised Learning for Fast and Reliable Surface Defect
    Detection", ICPR 2024, arXiv:2408.03143, its unsupervised mode. Layers are upscaled to twice the first one's grid,
    averaged over 3 x 3 and adapted by a linear layer. A batch is duplicated. Half of the copies get noise of standard
    deviation 0.015 where Perlin noise exceeds a threshold. The segmentation head is trained with a truncated L1 and a
    focal loss. The classification head (a 5 x 5 convolution over features and map, then mean and maximum) is trained
    with a focal loss that has no gradient to the map.
Differs:
    * Features are scaled to a root mean square of 0.1, so that the noise has the same effect with every backbone.
      ``rescale=False`` leaves them as they are.
    * Scores are logits, without the sigmoid, which keeps their order. As in the authors' code, an image's score comes
      from the classification head, which sees the map before it is upsampled and smoothed.
    * Perlin noise is sampled on the feature grid. The authors sample it at the next power of two and interpolate.
    * Labelled anomalies are not used.
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
from iadbe.layers.features.region import average_pooled, masked, max_pooled, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

MARGIN = 0.5  # th of the truncated L1 loss


class SuperSimpleNet(Detector):
    """Segmentation and classification heads on adapted features."""

    paper = "Rolih et al., SuperSimpleNet: Unifying Unsupervised and Supervised Learning, ICPR 2024, arXiv 2408.03143"
    year = 2024
    version = 2  # 2: Perlin noise is not rotated
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "rescale": False}
    renamed_tensors = {"where": "segmentation", "head": "convolution", "whether": "classification"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
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
        """Choose features, noise and training.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on twice the grid of the first
            weights: a file, auto or none
            noise: standard deviation σ of the Gaussian noise on adapted features
            threshold: value of the Perlin noise above which features get noise (the paper: 0.6 for VisA)
            rescale: scale features to a root mean square of 0.1
            width: units of the segmentation head's hidden layer; the classification head has an eighth
            epochs: passes over the training images
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(width, epochs, batch) < 1 or noise <= 0:
            raise BadConfig(f"width {width}, epochs {epochs}, batch {batch} and noise {noise} must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        self.noise, self.threshold, self.rescale = noise, threshold, rescale
        self.width, self.epochs, self.batch, self.sigma = width, epochs, batch, sigma
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        cached = FeatureCache(self.backbone)
        if self.rescale:
            self.level.fit(within(upscaled(cached(batch)), batch.region) for batch in train.batches(16))
        source = generator(rng, train.device)
        optimizer, rate = self._optimizer(-(-len(train) // self.batch) * self.epochs)
        self.convolution.train()
        self.segmentation.train()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, rate, source)):
            noisy, mask = self._with_noise(self._adapted(cached(batch)), source)
            region = None if batch.region is None else batch.region.repeat(2, 1, 1)
            map_, score = self._heads(noisy, region)
            label = masked(mask, region).flatten(1).any(1)
            map_, mask = within(map_, region), within(mask, region)
            loss = truncated_l1(map_, mask) + focal_loss(map_, mask) + focal_loss(score, label)
            step(optimizer, loss)
            rate.step()
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        map_, score = self._heads(self._adapted(self.backbone(batch)), batch.region)
        return Prediction(score, upsampled(map_, batch.image.shape[-2:], self.sigma, region=batch.region))

    def _initialise(self) -> None:
        """Make untrained layers, with weights from torch's global generator."""
        dim = sum(self.backbone.channels)
        self.level = Rescale()
        self.adaptor = nn.Linear(dim, dim)
        self.segmentation = Discriminator(dim, self.width)
        channels = max(1, self.width // 8)
        self.convolution = nn.Sequential(
            nn.Conv2d(dim + 1, channels, 5, padding=2), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.classification = nn.Linear(2 * channels + 2, 1)
        for layer in (self.adaptor, self.convolution[0], self.classification):
            nn.init.xavier_normal_(layer.weight)

    def _optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        heads = [*self.segmentation.parameters(), *self.convolution.parameters(), *self.classification.parameters()]
        groups = [{"params": self.adaptor.parameters(), "lr": 1e-4}, {"params": heads, "weight_decay": 1e-5}]
        optimizer = torch.optim.AdamW(groups, 2e-4)
        milestones = [max(1, round(share * steps)) for share in (0.8, 0.9)]
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.4)

    def _adapted(self, layers: list[Tensor]) -> Tensor:
        """Return adapted features on twice the first layer's grid: (B, 2h, 2w, D)."""
        return self.adaptor(upscaled([self.level(f) for f in layers]).permute(0, 2, 3, 1))

    def _with_noise(self, features: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return features (B, h, w, D) twice, with noise in about half of the copies, and its mask (2B, h, w)."""
        twice = torch.cat([features, features]).float()  # noise is small, so it is not added in 16 bits
        count, height, width, dim = twice.shape
        mask = perlin_masks(count, height, width, source, self.threshold, rotated=False)[:, 0]
        mask &= torch.rand(count, 1, 1, generator=source, device=source.device) <= 0.5
        rows = mask.flatten().nonzero()[:, 0]
        noise = torch.randn(len(rows), dim, generator=source, device=source.device)
        twice.view(-1, dim).index_add_(0, rows, noise, alpha=self.noise)
        return twice, mask

    def _heads(self, features: Tensor, region: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the map (B, h, w) and the score (B,) of adapted features (B, h, w, D), by what counts."""
        map_ = self.segmentation(features.flatten(0, 2)).view(features.shape[:3])
        detached = map_.detach()[:, None]
        weight, bias = self.convolution[0].weight, self.convolution[0].bias
        # equals the convolution of the concatenated features and map, without concatenating them
        of_features = F.conv2d(features.permute(0, 3, 1, 2), weight[:, :-1], bias, padding=2)
        hidden = self.convolution[1:](of_features + F.conv2d(detached, weight[:, -1:], padding=2))
        pooled = [pool(part, region) for part in (hidden, detached) for pool in (max_pooled, average_pooled)]
        return map_, self.classification(torch.cat(pooled, 1))[:, 0]


def upscaled(layers: list[Tensor]) -> Tensor:
    """Interpolate layers to twice the grid of the first, average over 3 x 3, concatenate: (B, D, 2h, 2w)."""
    height, width = (2 * side for side in layers[0].shape[-2:])
    return torch.cat(
        [_interpolation(f.shape[-2], height, f) @ f @ _interpolation(f.shape[-1], width, f).T for f in layers], 1
    )


def _interpolation(before: int, after: int, like: Tensor) -> Tensor:
    """Return the matrix (after, before) of linear interpolation along one axis, then a mean of three with zero padding.

    Both are separable. As matrix products they are several times faster on a CPU.
    """
    single = torch.eye(before, dtype=like.dtype, device=like.device)[None]
    return F.avg_pool1d(F.interpolate(single, after, mode="linear", align_corners=False), 3, 1, 1)[0].T


def truncated_l1(map_: Tensor, mask: Tensor) -> Tensor:
    """Return the loss (): the map shall be below -0.5 outside the mask and above 0.5 inside; the means are summed."""
    outside, inside = (MARGIN + map_[~mask]).clamp(min=0), (MARGIN - map_[mask]).clamp(min=0)
    return torch.stack([side.mean() for side in (outside, inside) if len(side)]).sum()
