"""A student draws the teacher's features again from a narrow embedding of them; what is new does not pass the neck.

Paper: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, 2201.10703.
    The teacher's layers are brought to the last one's grid by convolutions, stacked and embedded by a residual stage
    of half that grid; a mirrored, transposed decoder draws the layers again, the deepest first. The loss of a layer is
    one minus the cosine between the whole flattened maps, as in the authors' code; the map is the sum over layers of
    one minus the cosine at each position, the image's score its largest value.
Differs: the decoder follows any teacher: a ResNet's blocks are mirrored, two basic residual blocks per layer otherwise,
    whose sums are not rectified, as layers of networks with linear bottlenecks have negative values; the embedding has
    twice the channels of the last layer; maps are interpolated with pixel centres aligned, not corners.
Numbers: MVTec AD, WRN50-2, 256: image AUROC 98.5, pixel AUROC 97.8, AUPRO 93.9.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.blocks.residual import initialised, stage
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import concatenated
from iadbe.layers.training.feature_cache import Held
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction


class ReverseDistillation(Detector):
    """Student decoder behind a one-class bottleneck."""

    paper = "Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022, 2201.10703"
    year = 2022
    kind = "student-teacher"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        epochs: int = 200,
        learning_rate: float = 0.005,
        batch: int = 16,
        sigma: float = 4.0,
    ) -> None:
        """Choose the teacher, and how long the student learns.

        Args:
            backbone: any timm model: the teacher, whose layers the student mirrors
            layers: layers that are drawn again, the finest first
            weights: of the teacher: a file, auto or none
            epochs: how often every training image is shown
            learning_rate: of Adam with betas 0.5 and 0.999
            batch: images per step
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if min(epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig(f"epochs {epochs}, batch {batch} and learning_rate {learning_rate} must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        if list(layers) != sorted(set(layers)):
            raise BadConfig(f"layers are given once each, the finest first, not {list(layers)}.")
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.student = _Student(self.backbone)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.student = _Student(self.backbone)
        self.student.to(train.device).train()
        optimizer = torch.optim.Adam(self.student.parameters(), self.learning_rate, betas=(0.5, 0.999))
        features = Held(self.backbone)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
            teacher = features(batch)
            step(optimizer, whole_cosine(teacher, self.student(teacher)))
        self.student.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.student.eval()
        teacher = self.backbone(batch)
        size = batch.image.shape[-2:]
        pairs = zip(teacher, self.student(teacher), strict=True)
        errors = [upsampled(1 - F.cosine_similarity(t, s), size, self.sigma) for t, s in pairs]
        map_ = torch.stack(errors).sum(0)
        return Prediction(map_.amax((1, 2)), map_)


def whole_cosine(teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    """Return the sum over layers of one minus the cosine of the flattened maps (B, C * h * w), mean over images."""
    pairs = zip(teacher, student, strict=True)
    return torch.stack([1 - F.cosine_similarity(t.flatten(1), s.flatten(1)).mean() for t, s in pairs]).sum()


class _Student(nn.Module):
    """From the teacher's layers to the same layers, through the one-class embedding."""

    def __init__(self, teacher: Backbone) -> None:
        super().__init__()
        channels, strides = list(teacher.channels), list(teacher.strides)
        shapes = [_shape(teacher.network, layer) for layer in teacher.layers]  # (blocks, inner width, is rectified)
        self.gather = nn.ModuleList([_descent(channels[i:], strides[i:]) for i in range(len(channels))])
        blocks, inner = shapes[0][0], 2 * shapes[-1][1]
        self.embed = stage(len(channels) * channels[-1], 2 * channels[-1], blocks, "halve", inner)
        self.decoder = nn.ModuleList()
        before, stride = 2 * channels[-1], 2 * strides[-1]
        depths = [blocks for blocks, _, _ in shapes]  # the authors' deepest stage has as many as the finest layer
        for after, coarse, (_, inner, rectified), blocks in zip(
            channels[::-1], strides[::-1], shapes[::-1], depths, strict=True
        ):
            doublings = max(0, round(math.log2(stride / coarse)))
            wider = [stage(before, before, 1, "double", inner) for _ in range(doublings - 1)]
            last = stage(before, after, blocks, "double" if doublings else "keep", inner, rectified)
            self.decoder.append(nn.Sequential(*wider, last))
            before, stride = after, coarse

    def forward(self, teacher: list[Tensor]) -> list[Tensor]:
        """Map layers (B, C, h, w), the finest first, to the same shapes."""
        gathered = [down(features) for down, features in zip(self.gather, teacher, strict=True)]
        x = self.embed(concatenated(gathered[::-1], "bilinear"))
        drawn = []
        for up, like in zip(self.decoder, reversed(teacher), strict=True):
            x = up(x)
            if x.shape[-2:] != like.shape[-2:]:  # odd grids: the half was rounded
                x = F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
            drawn.append(x)
        return drawn[::-1]


def _descent(channels: list[int], strides: list[int]) -> nn.Sequential:
    """Make convolutions that bring the first of some layers to the grid and channels of the last."""
    parts: list[nn.Module] = []
    for i in range(1, len(channels)):
        before = channels[i - 1]
        for _ in range(max(1, round(math.log2(strides[i] / strides[i - 1])))):
            halve = 1 + (strides[i] > strides[i - 1])
            convolution = initialised(nn.Conv2d(before, channels[i], 3, halve, 1, bias=False))
            parts += [convolution, nn.BatchNorm2d(channels[i]), nn.ReLU(inplace=True)]
            before = channels[i]
    return nn.Sequential(*parts)


def _shape(network: nn.Module, layer: int) -> tuple[int, int, bool]:
    """Return a layer's blocks, its bottlenecks' inner width (0: basic blocks), and whether it ends in a ReLU."""
    blocks = getattr(network, f"layer{layer}", None)  # so are a ResNet's named
    if not isinstance(blocks, nn.Sequential) or not hasattr(blocks[-1], "conv2"):
        return 2, 0, False
    return len(blocks), blocks[-1].conv2.out_channels if hasattr(blocks[-1], "conv3") else 0, True
