"""A style-modulated decoder inverts a frozen encoder's features from a learnt constant; the score is their distance.

Paper: Zhang et al., "Learning Feature Inversion for Multi-class Anomaly Detection under General-purpose COCO-AD
    Benchmark" (InvAD), 2404.10760. As in the inversion of a generative network, nothing of the features is passed on
    directly. The fusion brings three layers of the encoder to the coarsest grid, concatenates and narrows them, and
    makes one map of styles per layer. The decoder starts from a learnt constant. Blocks of convolutions, modulated by
    the styles at every position, turn it into the coarsest layer, then into the finer ones (spatial style modulation).
    The loss is the mean squared error, summed over layers. For the map, each layer is scaled to unit length at every
    position, all are brought to the finest grid and concatenated; it is one minus the cosine. An image's score is the
    largest value of its map.
Differs:
    * Features are scaled to a root mean square of 1 per layer, so that learning rate and loss suit every backbone.
      ``rescale=False`` leaves them as they are.
    * Maps are interpolated with ``align_corners=False``. The last incomplete batch is used, the last epoch counts.
    * The grids of the decoder are those of the coarsest layer, doubled; where a layer's grid is odd, the
      reconstruction is resized to it.
    * The authors' discriminators, which their training does not use, are left out.
Numbers: MVTec AD, all categories together, WRN50-2, 256: image AUROC 98.9, pixel AUROC 98.2, AUPRO 94.1 (300 epochs).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.blocks.residual import ResidualBlock
from iadbe.layers.blocks.style_modulation import StyledBlock, activated
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import concatenated
from iadbe.layers.features.region import image_score, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

DECAY_AT = 0.8  # share of the epochs after which the learning rate is a tenth
MAX_NORM = 5.0  # of the gradient
SLOW = 0.01  # factor of the learning rate of the fusion's layers that double the grid


class InvAD(Detector):
    """Feature inversion by a decoder whose convolutions are modulated by styles of the features."""

    paper = "Zhang et al., Learning Feature Inversion for Multi-class Anomaly Detection, 2024, arXiv 2404.10760"
    year = 2024
    kind = "reconstruction"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.racm_in1k", "rescale": False}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        width: int = 64,
        styles: int = 16,
        blocks: int = 2,
        rescale: bool = True,
        epochs: int = 300,
        learning_rate: float = 0.004,
        batch: int = 32,
        sigma: float = 4.0,
    ) -> None:
        """Choose encoder, decoder and training.

        Args:
            backbone: any timm model; a ResNet-34 with 4 blocks makes the paper's InvAD-lite
            layers: layers that are reconstructed, the finest first, each with the grid of the one before or half of it
            weights: the encoder's: a file, auto or none
            width: channels of the fused features, at least 4
            styles: channels of a map of styles
            blocks: modulated blocks per layer, each with two convolutions
            rescale: scale the features of each layer to a root mean square of 1
            epochs: passes over the training images
            learning_rate: of Adam with betas 0 and 0.99; a tenth after 80 % of the epochs
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(styles, blocks, epochs, batch) < 1 or learning_rate <= 0 or width < 4:
            raise BadConfig("width must be at least 4, styles, blocks, epochs, batch and learning_rate above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        steps = [coarse / fine for fine, coarse in pairwise(self.backbone.strides)]
        if not set(steps) <= {1, 2}:
            strides = ", ".join(map(str, self.backbone.strides))
            raise BadConfig(
                f"layers have the strides {strides}. Choose them finest first, each stride equal to or twice the last."
            )
        self.width, self.styles, self.blocks, self.rescale = width, styles, blocks, rescale
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.scales = nn.ModuleList([Rescale(1.0) for _ in layers])
        self.inversion = _Inversion(self, 1, 1)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        self.scales = nn.ModuleList([Rescale(1.0) for _ in self.scales]).to(train.device)
        features = FeatureCache(self.backbone)
        if self.rescale:
            for number, scale in enumerate(self.scales):
                scale.fit(within(features(batch)[number], batch.region) for batch in train.batches(16))
        height, width = features(next(train.batches(1)))[-1].shape[-2:]
        with seeded(rng):
            self.inversion = _Inversion(self, height, width)
        self.inversion.to(train.device).train()
        optimizer = torch.optim.Adam(self.inversion.parameters(), self.learning_rate, betas=(0.0, 0.99))
        milestone = max(1, round(DECAY_AT * self.epochs)) * -(-len(train) // self.batch)
        rate = torch.optim.lr_scheduler.StepLR(optimizer, milestone, 0.1)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, rate)):
            encoded = self._scaled(features(batch))
            layers = ([within(f, batch.region) for f in some] for some in (self.inversion(encoded), encoded))
            pairs = zip(*layers, strict=True)
            step(optimizer, torch.stack([F.mse_loss(found, expected) for found, expected in pairs]).sum(), MAX_NORM)
            rate.step()
        self.inversion.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.inversion.eval()
        encoded = self._scaled(self.backbone(batch))
        error = cosine_distance(encoded, self.inversion(encoded))
        map_ = upsampled(error, batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    def _scaled(self, features: list[Tensor]) -> list[Tensor]:
        return [scale(f) for scale, f in zip(self.scales, features, strict=True)]


def cosine_distance(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Return one minus the cosine of layers (B, C, h, w) on the finest grid, each of unit length before: (B, h, w)."""
    a, b = (concatenated([F.normalize(f) for f in layers], "bilinear") for layers in (first, second))
    return 1 - F.cosine_similarity(a, b)


class _Inversion(nn.Module):
    """The fusion and the decoder: from layers (B, C, h, w), the finest first, to their reconstruction.

    From here on lists have the coarsest layer first.
    """

    def __init__(self, chosen: InvAD, height: int, width: int) -> None:
        super().__init__()
        channels, strides = chosen.backbone.channels[::-1], chosen.backbone.strides[::-1]
        doubled = [False, *(fine < coarse for coarse, fine in pairwise(strides))]
        self.fusion = _Fusion(channels, strides, doubled, chosen.width)
        self.constant = nn.Parameter(torch.randn(1, channels[0], height, width))
        self.first = activated(channels[0], channels[0])
        self.styles, self.stages = nn.ModuleList(), nn.ModuleList()
        before = channels[0]
        for after, fused, double in zip(channels, self.fusion.widths, doubled, strict=True):
            self.styles.append(nn.Sequential(activated(fused, fused), activated(fused, chosen.styles)))
            made = [
                StyledBlock(before if i == 0 else after, after, chosen.styles, double and i == 0)
                for i in range(chosen.blocks)
            ]
            self.stages.append(nn.ModuleList(made))
            before = after

    def forward(self, layers: list[Tensor]) -> list[Tensor]:
        """Return reconstructions of the layers, the finest first."""
        x = self.first(self.constant).expand(layers[0].shape[0], -1, -1, -1)
        found = []
        for fused, styles, stage, like in zip(
            self.fusion(layers[::-1]), self.styles, self.stages, layers[::-1], strict=True
        ):
            style = styles(fused)
            for block in stage:
                x = block(x, style)
            same = x.shape[-2:] == like.shape[-2:]
            found.append(x if same else F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False))
        return found[::-1]


class _Fusion(nn.Module):
    """From layers to fused features for the styles of each, of ``widths`` channels on the decoder's grids."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], doubled: list[bool], width: int) -> None:
        super().__init__()
        self.widths = [min(width, c) for c in channels]
        narrow = self.widths[0]
        self.downsampling = nn.ModuleList()
        for count, stride in zip(channels, strides, strict=True):
            side = strides[0] // stride
            self.downsampling.append(nn.Sequential(nn.Conv2d(count, count, side, side), nn.BatchNorm2d(count)))
        self.narrowed = nn.Sequential(
            nn.Conv2d(sum(channels), narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)
        )
        self.bottleneck = ResidualBlock(narrow, narrow, inner=max(1, narrow // 4))
        self.stages = nn.ModuleList()
        before = narrow
        for after, double in zip(self.widths, doubled, strict=True):
            resized = activated(before, after, double, SLOW if double else 1.0)
            self.stages.append(nn.Sequential(resized, activated(after, after)))
            before = after

    def forward(self, layers: list[Tensor]) -> list[Tensor]:
        down = [part(layer) for part, layer in zip(self.downsampling, layers, strict=True)]
        x = self.bottleneck(self.narrowed(concatenated(down, "bilinear")))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found
