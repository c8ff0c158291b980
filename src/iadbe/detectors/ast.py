"""A normalizing flow as teacher and a convolutional network as student; the score is the distance of their outputs.

Paper: Rudolph et al., "Asymmetric Student-Teacher Networks for Industrial Anomaly Detection", WACV 2023, 2210.07829.
    The teacher is a Real NVP over a backbone's features (RGB), the depth of the foreground in blocks of 8 x 8 pixels
    (3D), or both, trained by maximum likelihood: four couplings with fixed random permutations before them, whose
    subnets also see a positional encoding. The student, a residual network with the same inputs, learns its outputs.
    Only a network that is unlike the invertible teacher disagrees with it on what it has not seen. With depth, loss and
    score count the foreground alone: what is farther than 7 mm from a ground between the image's corners.
Differs:
    * Features are those of a whole layer of any convolutional backbone. The paper takes block 36 of EfficientNet-B5,
      with which no layer ends. Its weights are timm's ``tf_efficientnet_b5.aa_in1k``, the authors' checkpoint.
    * Channels are first standardised with mean and deviation of the training images (not with ``standardise=false``).
    * Gaps are filled and the foreground is found in the view, not at the image's full size.
    * The clamp has 2 / π where the authors write 0.636. The last, smaller batch of an epoch is not dropped.
    * The map is upsampled to the view at once, and the largest distance is read there.
Numbers: MVTec 3D-AD, RGB and 3D: image AUROC 93.7, about 2 points more after a correction of the authors' code (their
    README); MVTec AD: image AUROC 99.2 (the paper).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig, BadDetector
from iadbe.layers.blocks.positional_encoding import sinusoidal_encoding
from iadbe.layers.features.foreground import relative_depth
from iadbe.layers.features.region import image_score, masked, within
from iadbe.layers.flows.coupling import GlowCoupling
from iadbe.layers.flows.invertible import Flow, InvertibleLayer
from iadbe.layers.flows.mixing import Permutation
from iadbe.layers.flows.scaling import Standardisation, fit_standardisation
from iadbe.layers.flows.subnets import ConvolutionalSubnet
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

CLAMP = 1.9
POSITION = 32  # values of the positional encoding
BLOCK = 8  # pixels of depth along a side of each position


class AST(Detector):
    """Asymmetric student and teacher, on images, depth or both."""

    paper = "Rudolph et al., Asymmetric Student-Teacher Networks, WACV 2023, arXiv 2210.07829"
    year = 2023
    kind = "student-teacher"
    can = frozenset({"localise"})
    needs_for = {"inputs": {"depth": ["depth"], "both": ["depth"]}}
    paper_view = {"resize": 768}
    paper_params = {"backbone": "tf_efficientnet_b5.aa_in1k", "standardise": False}
    paper_by_category = {
        "mvtec_3d/bagel": {"inputs": "both"},
        "mvtec_3d/cable_gland": {"inputs": "both"},
        "mvtec_3d/carrot": {"inputs": "both"},
        "mvtec_3d/cookie": {"inputs": "both"},
        "mvtec_3d/dowel": {"inputs": "both"},
        "mvtec_3d/foam": {"inputs": "both"},
        "mvtec_3d/peach": {"inputs": "both"},
        "mvtec_3d/potato": {"inputs": "both"},
        "mvtec_3d/rope": {"inputs": "both"},
        "mvtec_3d/tire": {"inputs": "both"},
    }

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layer: int = 4,
        weights: str = "auto",
        inputs: Literal["rgb", "depth", "both"] = "rgb",
        blocks: int = 4,
        hidden: int = 64,
        width: int = 1024,
        student_blocks: int = 4,
        standardise: bool = True,
        foreground: float = 7e-3,
        epochs: int = 72,
        learning_rate: float = 2e-4,
        batch: int = 8,
    ) -> None:
        """Set up untrained networks.

        Args:
            backbone: any convolutional timm model
            layer: the layer whose features are modelled
            weights: a file, auto or none
            inputs: rgb, depth or both; the last two need data with depth
            blocks: coupling blocks of the teacher
            hidden: hidden channels of the teacher's subnets
            width: channels of the student; 128 is fast on a CPU
            student_blocks: residual blocks of the student
            standardise: standardise each channel with mean and deviation of the training images
            foreground: distance from the ground above which a pixel counts, in the unit of the depth
            epochs: passes over the training images, of the teacher and then of the student
            learning_rate: of Adam with weight decay 1e-5, for both
            batch: images per step
        """
        super().__init__()
        if min(blocks, hidden, width, student_blocks, epochs, batch) < 1 or learning_rate <= 0 or foreground < 0:
            raise BadConfig(
                "blocks, hidden, width, student_blocks, epochs, batch and learning_rate must all be above 0, "
                "foreground 0 or more."
            )
        if inputs not in ("rgb", "depth", "both"):
            raise BadConfig(f"inputs are rgb, depth or both, not {inputs!r}.")
        self.backbone = Backbone(backbone, (layer,), weights)
        self.inputs, self.standardise, self.foreground = inputs, standardise, foreground
        self.blocks, self.hidden, self.width, self.student_blocks = blocks, hidden, width, student_blocks
        self.epochs, self.learning_rate, self.batch = epochs, learning_rate, batch
        if inputs != "rgb":
            self.needs = self.needs | {"depth"}
        self.standard, self.teacher, self.student = self._new_networks()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.standard, self.teacher, self.student = (n.to(train.device) for n in self._new_networks())
        read = FeatureCache(lambda batch: self._read(replace(batch, keys=_image_keys(batch))))
        if self.standardise:
            parts = ([within(self._known(read, b)[0], b.region)] for b in train.batches(self.batch))
            fit_standardisation([self.standard], parts)
        optimizer = self._optimizer(self.teacher)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer,)):
            x, mask = self._known(read, batch)
            mask = masked(mask, batch.region)
            step(optimizer, likelihood_loss(*self.teacher(self._scaled(x), position(x)), mask))
        self.student.train()
        optimizer = self._optimizer(self.student)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer,)):
            x, mask = self._known(read, batch)
            step(optimizer, within(self._distance(x, mask), batch.region).mean())
        self.student.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.student.eval()
        x, mask = self._read(batch)
        distance = self._distance(x, mask)
        map_ = F.interpolate(distance[:, None], batch.image.shape[-2:], mode="bicubic", align_corners=False)[:, 0]
        return Prediction(image_score(map_, batch.region), map_)

    def _distance(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the mean squared distance of teacher and student, weighted by the foreground: (B, h, w)."""
        x, where = self._scaled(x), position(x)
        with torch.no_grad():
            target, _ = self.teacher(x, where)
        return (mask * (target - self.student(torch.cat([x, where.expand(x.shape[0], -1, -1, -1)], 1))).square()).mean(
            1
        )

    def _scaled(self, x: Tensor) -> Tensor:
        scaled, _ = self.standard(x)
        return scaled.contiguous(memory_format=torch.channels_last)

    def _known(self, read: FeatureCache, batch: Batch) -> list[Tensor]:
        """Return the inputs, from the cache if it has them. Equal images may differ in depth: ids are in its keys."""
        keys = None if batch.keys is None else tuple(f"{k}|{i}" for k, i in zip(batch.keys, batch.id, strict=True))
        return read(replace(batch, keys=keys))

    @torch.no_grad()
    def _read(self, batch: Batch) -> list[Tensor]:
        """Return the teacher's inputs (B, C, h, w) and the weight of each position (B, 1, h, w)."""
        (features,) = self.backbone(batch)
        if self.inputs == "rgb":
            return [features, torch.ones_like(features[:, :1])]
        if batch.depth is None:
            raise BadDetector(f"ast with inputs={self.inputs} needs depth, which these images do not have.")
        height, width = features.shape[-2:]
        depth, mask = relative_depth(batch.depth, (BLOCK * height, BLOCK * width), self.foreground)
        channels = F.pixel_unshuffle(depth, BLOCK)
        mask = F.interpolate(mask, size=(height, width), mode="bilinear", align_corners=False)
        return [channels if self.inputs == "depth" else torch.cat([features, channels], 1), mask]

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), self.learning_rate, weight_decay=1e-5, fused=True)

    def _new_networks(self) -> tuple[Standardisation, Flow, nn.Module]:
        """Return standardisation, teacher and student, with random weights from torch's global generator."""
        channels = {"rgb": 0, "depth": BLOCK**2, "both": BLOCK**2}[self.inputs]
        channels += 0 if self.inputs == "depth" else self.backbone.channels[0]

        def subnet(kernel: int):
            return lambda inside, outside: ConvolutionalSubnet(
                inside, outside, self.hidden, kernel, POSITION, replicate=True, gain=True
            )

        layers: list[InvertibleLayer] = []
        for kernel in [3] * (self.blocks - 1) + [5]:
            layers += [Permutation(channels), GlowCoupling(channels, subnet(kernel), CLAMP)]
        student = _Student(channels, self.width, self.student_blocks)
        # channels last is faster on CPUs
        return (
            Standardisation(channels),
            Flow(layers).to(memory_format=torch.channels_last),
            student.to(memory_format=torch.channels_last),
        )


class _ResidualBlock(nn.Module):
    """Two convolutions, each with batch norm and leaky ReLU, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.norm1(self.first(x)))
        return x + F.leaky_relu(self.norm2(self.second(hidden)))


class _Student(nn.Sequential):
    """A convolution, residual blocks, and a convolution to the teacher's channels."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__(
            nn.Conv2d(channels + POSITION, width, 3, padding=1),
            nn.LeakyReLU(),
            *(_ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, channels, 3, padding=1),
        )


def _image_keys(batch: Batch) -> tuple[str, ...] | None:
    """Return the keys of the images, as the feature store knows them, without the ids that the cache adds."""
    return None if batch.keys is None else tuple(key.partition("|")[0] for key in batch.keys)


def likelihood_loss(z: Tensor, log_det: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over images and positions of m (½‖z‖² - log|det J|), for z (B, C, h, w) and m (B, 1, h, w)."""
    return (mask * z.square() / 2).sum(1).sub(mask[:, 0] * log_det).mean()


def position(x: Tensor) -> Tensor:
    """Return the positional encoding (1, POSITION, h, w) of the grid of (B, C, h, w)."""
    return sinusoidal_encoding(POSITION, *x.shape[-2:])[None].to(x.device)
