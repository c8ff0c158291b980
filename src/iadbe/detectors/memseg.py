"""Differences from the most similar remembered image guide a segmentation network; its probability is the score.

Paper: Yang et al., "MemSeg: A semi-supervised method for image surface defect detection using differences and
    commonalities", 2022, 2205.00908. A memory holds three layers of 30 normal images. Each image's layers are
    concatenated with their squared difference from the remembered image that is nearest over all layers; fused across
    scales with coordinate attention; weighted by the mean difference of their own and of all coarser layers; and
    decoded to a mask, as in a U-Net. The next stage of the backbone, trained on, is the coarsest input of the decoder,
    its stem the finest. Half of the training images have a synthetic defect: in a region of Perlin noise, a foreign
    texture or the image itself, augmented and with 4 x 8 shuffled tiles, of opacity 0.15 to 1. The loss is 0.6 L1 +
    0.4 focal loss (γ = 4); the image score is the mean of the map's 100 highest pixels. There is no code by the
    authors; what the paper leaves open follows TooTouch/MemSeg.
Differs:
    * Without a folder of ``textures`` (the paper: the Describable Textures Dataset) foreign textures are drawn.
    * The image's own tiles are changed by three augmentations of DRAEM's pool, as in TooTouch/MemSeg. The paper
      mirrors, rotates and changes brightness, saturation and hue.
    * The foreground is what is darker or brighter than a grey ``level``, without opening or closing it.
    * The stem is frozen: training it would change the frozen layers after it, and not the memory. So are the statistics
      of the batch norms in the stage that is trained on, which are folded into its convolutions.
    * A step always has ``batch`` images: if fewer are left, they are repeated.
Numbers: MVTec AD, ResNet-18, 256: image AUROC 99.6, pixel AUROC 98.8 (the paper's); 98.3 and 95.0 with TooTouch/MemSeg.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.coordinate_attention import CoordinateAttention
from iadbe.layers.blocks.next_stage import next_stage
from iadbe.layers.blocks.residual import residual_stage
from iadbe.layers.blocks.unet import convolution
from iadbe.layers.features.region import image_score, within
from iadbe.layers.memory_bank.nearest_neighbours import squared_distances
from iadbe.layers.synthetic.augmentations import augmented, luma
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.textures import TextureSource, shuffled_tiles
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.layers.training.optimizers import warmup_cosine
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

OPACITY = (0.15, 1.0)  # of a synthetic defect
TILES = (4, 8)  # down and across
EXPORTED_BLOCK = 8  # remembered images that an exported graph compares with at a time
WEIGHT_L1, WEIGHT_FOCAL, GAMMA = 0.6, 0.4, 4.0
WARM, FINAL = 0.1, 1 / 30  # share of the steps in which the learning rate rises; what is left of it at the end


class MemSeg(Detector):
    """Segmentation of what differs from a memory of normal images, trained on synthetic defects."""

    paper = "Yang et al., MemSeg: image surface defect detection using differences and commonalities, arXiv 2205.00908"
    year = 2022
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    whole_image = "the memory is of whole images, which are compared as a whole"
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet18.tv_in1k"}
    paper_by_category = {
        "mvtec_ad/bottle": {"foreground": "darker", "level": 250},
        "mvtec_ad/capsule": {"foreground": "darker", "level": 120},
        "mvtec_ad/hazelnut": {"foreground": "brighter", "level": 50},
        "mvtec_ad/metal_nut": {"foreground": "brighter", "level": 40},
        "mvtec_ad/pill": {"foreground": "brighter", "level": 100},
        "mvtec_ad/screw": {"foreground": "darker", "level": 110},
        "mvtec_ad/toothbrush": {"foreground": "brighter", "level": 30},
        "mvtec_ad/transistor": {"foreground": "darker", "level": 90},
        "mvtec_ad/zipper": {"foreground": "darker", "level": 100},
    }

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        stage: Literal["pretrained", "untrained"] = "pretrained",
        memory: int = 30,
        width: int = 48,
        textures: str = "",
        foreground: Literal["everything", "darker", "brighter"] = "everything",
        level: int = 100,
        steps: int = 2700,
        learning_rate: float = 0.04,
        batch: int = 8,
        top: int = 100,
    ) -> None:
        """Set up an untrained detector.

        Args:
            backbone: a convolutional timm model whose stages follow one another, as those of ResNet or EfficientNet
            layers: layers that are remembered, one after the other
            weights: of the backbone: a file, auto or none
            stage: how the stage after the last layer starts: with the backbone's weights, or as two untrained residual
                blocks, which a weight file that ends before it needs
            memory: number of normal images that are remembered
            width: channels of the decoder at its two finest scales
            textures: a folder of texture images; empty: foreign textures are drawn
            foreground: where synthetic defects may lie: everywhere, or in what is darker or brighter than level
            level: grey level from 0 to 255 that parts the object from its ground
            steps: number of training steps
            learning_rate: the highest of SGD, which warms up and falls along a cosine
            batch: images per step, half of them with a synthetic defect
            top: number of pixels whose mean is the image score
        """
        super().__init__()
        if min(memory, width, steps, top) < 1 or batch < 2 or learning_rate <= 0:
            raise BadConfig("memory, width, steps, top and learning_rate must all be above 0, batch at least 2.")
        if list(layers) != list(range(layers[0], layers[0] + len(layers))) or layers[0] < 1:
            raise BadConfig(f"layers are one after the other, from 1 on, not {list(layers)}.")
        if foreground not in ("everything", "darker", "brighter") or stage not in ("pretrained", "untrained"):
            raise BadConfig("foreground is everything, darker or brighter, and stage is pretrained or untrained.")
        self.backbone = Backbone(backbone, (0, *layers), weights)
        self.initial = self._initial_stage(stage, weights)
        self.memory, self.width, self.steps, self.batch, self.top = memory, width, steps, batch, top
        self.learning_rate, self.foreground, self.level = learning_rate, foreground, level
        self.textures = TextureSource(textures, shuffled=0.0, recolour_foreign=False)
        for number in range(len(layers)):
            self.register_buffer(f"memory{number}", torch.empty(0))  # (N, C, h, w)
        self._reset()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._reset()
        self.to(train.device)
        self._remember(train, rng)
        cached, source = FeatureCache(self.backbone), generator(rng)
        network = nn.ModuleList([self.stage, self.fusion, self.decoder]).train()
        optimizer = torch.optim.SGD(network.parameters(), self.learning_rate, momentum=0.9, weight_decay=5e-4)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda done: max(FINAL, warmup_cosine(done, self.steps, round(WARM * self.steps), FINAL))
        )
        for batch in loop(train, steps=self.steps, batch=self.batch, rng=rng, state=(optimizer, rate, source)):
            chosen = batch.cycled(self.batch)
            half, region = self.batch // 2, batch.taken(chosen).region
            image, mask = self._with_defects(batch.image[chosen[:half]], source)
            pairs = zip(self.backbone(image), cached(batch), strict=True)
            features = [torch.cat([defective, normal[chosen[half:]]]) for defective, normal in pairs]
            mask = torch.cat([mask, mask.new_zeros(self.batch - half, *mask.shape[1:])])
            logits = self._logits(features, image.shape[-2:])
            step(optimizer, segmentation_loss(within(logits, region), within(mask, region)))
            rate.step()
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        map_ = self._logits(self.backbone(batch), batch.image.shape[-2:]).sigmoid()
        return Prediction(image_score(map_, batch.region, self.top), map_)

    def _initial_stage(self, stage: str, weights: str) -> nn.Module:
        """Return the frozen start of the stage that is trained on; none if it starts untrained."""
        channels = self.backbone.channels[-1]
        if stage == "untrained":
            self.deepest = 2 * channels
            return nn.Identity()
        made, self.deepest = next_stage(self.backbone.name, self.backbone.layers[-1], weights)
        return made.requires_grad_(False)

    def _reset(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        stem, *channels = self.backbone.channels
        if isinstance(self.initial, nn.Identity):
            self.stage: nn.Module = residual_stage(channels[-1], self.deepest, 2, "halve")
        else:
            self.stage = copy.deepcopy(self.initial).requires_grad_(True)
        self.fusion, self.decoder = _Fusion(channels), _Decoder([stem, *channels, self.deepest], self.width)
        for network in (self.stage, self.fusion, self.decoder):
            network.to(memory_format=torch.channels_last)  # quicker on processors

    def _remember(self, train: Images, rng: np.random.Generator) -> None:
        """Fill the memory with the layers of normal images that are drawn at random."""
        chosen = train.subset(sorted(rng.permutation(len(train))[: self.memory].tolist()))
        parts = [self.backbone(batch)[1:] for batch in chosen.batches(16)]
        for number, layer in enumerate(zip(*parts, strict=True)):
            setattr(self, f"memory{number}", torch.cat(layer))

    def _logits(self, features: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """Return the logits of a defect at each pixel (B, H, W), given stem and layers of images, (B, C, h, w) each."""
        stem, *layers = (f.contiguous(memory_format=torch.channels_last) for f in features)
        differences = nearest_differences(layers, [getattr(self, f"memory{n}") for n in range(len(layers))])
        fused = self.fusion(layers, differences)
        normal, defect = self.decoder([stem, *fused, self.stage(layers[-1])], size).unbind(1)
        return defect - normal  # the softmax of two channels is the sigmoid of their difference

    def _with_defects(self, image: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) with synthetic defects, and their masks (B, H, W), bool."""
        count, _, height, width = image.shape
        mask = perlin_masks(count, height, width, source).to(image.device)
        if self.foreground != "everything":
            grey = torch.stack([luma(one) for one in image]) * 255
            mask &= grey > self.level if self.foreground == "brighter" else grey <= self.level
        own = shuffled_tiles(augmented(image.cpu(), source), source, TILES).to(image.device)
        structural = (torch.rand(count, 1, 1, 1, generator=source) < 0.5).to(image.device)
        texture = torch.where(structural, own, self.textures(image, source))
        return blended(image, mask, texture, source, OPACITY), mask[:, 0]


def nearest_differences(layers: list[Tensor], memory: list[Tensor]) -> list[Tensor]:
    """Return the squared difference of each layer (B, C, h, w) from that of the nearest remembered image.

    The nearest image has the smallest sum over layers of mean squared differences, so it is the same one for all
    layers, of which ``memory`` holds those of each image (N, C, h, w).
    """
    distance = torch.stack(
        [
            squared_distances(f.flatten(1), m.flatten(1), EXPORTED_BLOCK) / m[0].numel()
            for f, m in zip(layers, memory, strict=True)
        ]
    ).sum(0)  # (B, N)
    nearest = distance.argmin(1)
    return [(f - m[nearest]).square() for f, m in zip(layers, memory, strict=True)]


def segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the weighted sum () of the L1 distance of the probability and the focal loss, of (B, H, W) each."""
    return WEIGHT_L1 * F.l1_loss(logits.sigmoid(), mask.to(logits)) + WEIGHT_FOCAL * focal_loss(logits, mask, GAMMA)


class _Fusion(nn.Module):
    """Fuses layers and their differences across scales, and weights them by the mean differences."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.mixing = nn.ModuleList(_conv(2 * c, 2 * c) for c in channels)
        self.attention = nn.ModuleList(CoordinateAttention(2 * c) for c in channels)
        self.reducing = nn.ModuleList(nn.Sequential(_conv(2 * c, c), _conv(c, c)) for c in channels)
        self.finer = nn.ModuleList(_conv(b, a) for a, b in pairwise(channels))

    def forward(self, layers: list[Tensor], differences: list[Tensor]) -> list[Tensor]:
        """Map (B, C, h, w) of each layer to the same shapes."""
        mixed = []
        blocks = zip(layers, differences, self.mixing, self.attention, self.reducing, strict=True)
        for layer, difference, mixing, attention, reducing in blocks:
            x = torch.cat([layer, difference], 1)
            mixed.append(reducing(mixing(x) * attention(x)))
        for number in reversed(range(len(mixed) - 1)):
            mixed[number] = mixed[number] + self.finer[number](_resized(mixed[number + 1], mixed[number]))
        weighted = []
        weight = None
        for x, difference in zip(mixed[::-1], differences[::-1], strict=True):
            mean = difference.mean(1, keepdim=True)
            weight = mean if weight is None else mean * _resized(weight, mean)
            weighted.append(x * weight)
        return weighted[::-1]


class _Decoder(nn.Module):
    """From stem, fused layers and the last stage to two logits per pixel; every scale is half of the one before."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        stem, *layers, deepest = channels
        self.stem = _conv(stem, width)
        before = [deepest, *(2 * c for c in layers[::-1])]
        self.up = nn.ModuleList(convolution(b, a) for b, a in zip(before, [*layers[::-1], width], strict=True))
        self.full = convolution(2 * width, width)
        self.last = _conv(width, 2)

    def forward(self, features: list[Tensor], size: tuple[int, ...]) -> Tensor:
        stem, *layers, x = features
        for up, same in zip(self.up, [*layers[::-1], self.stem(stem)], strict=True):
            x = torch.cat([up(_resized(x, same)), same], 1)
        return self.last(self.full(F.interpolate(x, size, mode="bilinear", align_corners=True)))


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
