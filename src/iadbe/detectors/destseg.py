"""A student learns to see damaged images as its teacher sees whole ones; a network learns to read where they part.

Paper: Zhang et al., "DeSTSeg: Segmentation Guided Denoising Student-Teacher for Anomaly Detection", CVPR 2023,
    2211.11317. Foreign textures with an opacity of 0.2 to 1 are laid into regions of Perlin noise of every training
    image. The student, an untrained encoder one layer deeper than the teacher's and a decoder of two residual blocks
    per layer, sees the damaged image and learns by the cosine distance to the teacher's features of the whole one.
    Then it is frozen; of the damaged image, the products of teacher's and student's normed features, all on the
    finest grid, go into two residual blocks and an atrous pyramid, which learn the regions by a focal and an L1 loss.
    That network's probability is the map, the mean of its 100 highest pixels the score.
Differs: without a folder of textures (the paper takes the Describable Textures Dataset) they are drawn or made of the
    image's own parts in disorder, and textures are recoloured; images are not rotated, which the paper does by
    hand-picked categories; a step has ``batch`` images also where fewer are left, which then stand in it several
    times, damaged differently (the authors drop the rest); the last block of a decoder's layer is not rectified where
    the teacher's layer is not; where a layer has no deeper one, the encoder ends with it. Of a time budget the student
    has at most half.
Numbers: MVTec AD, ResNet-18, 256: image AUROC 98.6, pixel AUROC 97.9, pixel AP 75.8. All categories together (ADer):
    image AUROC 96.4, AUPRO 83.4. Measured here on the drawn metal at 128 after only 100 steps of 8 images, width 32:
    image AUROC 92.2, pixel AUROC 93.8. On a processor alone the paper's 5000 steps take days.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.aspp import ASPP, conv_norm_relu
from iadbe.layers.blocks.residual import residual_stage
from iadbe.layers.blocks.student import student_network
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.textures import TextureSource
from iadbe.layers.training.checkpointing import gradient_checkpointing
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

OPACITY = (0.2, 1.0)  # of a texture
DENOISING = 0.2  # of the steps, in which the student learns: 1000 of 5000
STUDENT_TIME = 0.5  # of a time budget, at most


class DeSTSeg(Detector):
    """Denoising student and teacher, compared by a segmentation network."""

    paper = "Zhang et al., DeSTSeg: Segmentation Guided Denoising Student-Teacher, CVPR 2023, arXiv 2211.11317"
    year = 2023
    kind = "student-teacher"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet18.tv_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        width: int = 256,
        textures: str = "",
        steps: int = 5000,
        learning_rate: float = 0.4,
        batch: int = 32,
        top: int = 100,
    ) -> None:
        """Choose the teacher, and how long student and segmentation network learn.

        Args:
            backbone: any convolutional timm model: the teacher, and the architecture of the student's encoder
            layers: layers that are compared, the finest first
            weights: of the teacher: a file, auto or none
            width: channels of the segmentation network
            textures: a folder of images to take textures from; empty: they are drawn
            steps: of training, a fifth of them for the student
            learning_rate: of the student; a quarter of it for the residual blocks, a fortieth for what follows them
            batch: images per step
            top: pixels whose mean is the image's score
        """
        super().__init__()
        if min(width, top) < 1 or min(steps, batch) < 2 or learning_rate <= 0:
            raise BadConfig("width, top and learning_rate must all be above 0, steps and batch at least 2.")
        if list(layers) != sorted(set(layers)):
            raise BadConfig(f"layers are given once each, the finest first, not {list(layers)}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.width, self.steps, self.batch, self.top = width, steps, batch, top
        self.learning_rate = learning_rate
        self.textures = TextureSource(textures, shuffled=0.0 if textures else 0.5)
        self._begin()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._begin()
        self.to(train.device).eval()
        first = max(1, round(DENOISING * self.steps))
        with progress.budget_share(STUDENT_TIME):
            self._denoise(train, first, rng)
        self._segment(train, self.steps - first, rng)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        seen = compared(self.backbone(batch), self._student(batch.image))
        map_ = upsampled(self.segmentation(seen)[:, 0].sigmoid(), batch.image.shape[-2:], sigma=0)
        return Prediction(map_.flatten(1).topk(min(self.top, map_[0].numel()), dim=1).values.mean(1), map_)

    def _begin(self) -> None:
        """Make an untrained student and segmentation network, with weights from torch's generator."""
        self.student = _Student(self.backbone)
        residual = residual_stage(sum(self.backbone.channels), self.width, 2)
        head = nn.Sequential(ASPP(self.width, self.width), conv_norm_relu(self.width, self.width, 3))
        self.segmentation = nn.Sequential(residual, head, nn.Conv2d(self.width, 1, 1))

    def _denoise(self, train: Images, steps: int, rng: np.random.Generator) -> None:
        """Teach the student to see what was there before the damage."""
        optimizer = torch.optim.SGD(self.student.parameters(), self.learning_rate, momentum=0.9, weight_decay=1e-4)
        cached = FeatureCache(self.backbone)
        self.student.train()
        with gradient_checkpointing(self.student):
            for batch, which, damaged, _ in self._damaged(train, steps, rng):
                pairs = zip(cached(batch), self._student(damaged), strict=True)
                errors = [1 - F.cosine_similarity(t[which], s) for t, s in pairs]  # (B, h, w)
                step(optimizer, torch.stack([error.mean((1, 2)).sum() for error in errors]).sum())
        self.student.eval()

    def _segment(self, train: Images, steps: int, rng: np.random.Generator) -> None:
        """Teach the segmentation network where teacher and student see the same damaged image differently."""
        residual, head, last = self.segmentation
        late = {"params": [*head.parameters(), *last.parameters()], "lr": self.learning_rate / 40}
        groups = [{"params": residual.parameters()}, late]
        optimizer = torch.optim.SGD(groups, self.learning_rate / 4, momentum=0.9, weight_decay=1e-4)
        self.segmentation.train()
        for _, _, damaged, mask in self._damaged(train, steps, rng):
            with torch.no_grad():
                seen = compared(self.backbone(damaged), self._student(damaged))
            found = self.segmentation(seen)
            truth = F.interpolate(mask.float(), found.shape[-2:], mode="bilinear", align_corners=False) >= 0.5
            step(optimizer, focal_loss(found, truth) + F.l1_loss(found.sigmoid(), truth.float()))
        self.segmentation.eval()

    def _damaged(
        self, train: Images, steps: int, rng: np.random.Generator
    ) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor]]:
        """Yield a batch, which of it stand in the step, these damaged (B, 3, H, W), and where they are (B, 1, H, W)."""
        source = generator(rng)
        epochs = -(-steps // -(-len(train) // self.batch))
        for batch in itertools.islice(loop(train, epochs=epochs, batch=self.batch, rng=rng), steps):
            which = torch.arange(self.batch, device=batch.image.device) % len(batch)
            image = batch.image[which]
            mask = perlin_masks(len(image), *image.shape[-2:], source).to(image.device)
            yield batch, which, blended(image, mask, self.textures(image, source), source, OPACITY), mask

    def _student(self, image: Tensor) -> list[Tensor]:
        """Return the student's layers of images (B, 3, H, W)."""
        return self.student((image - self.backbone.mean) / self.backbone.std)


def compared(teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    """Return minus the products, channel by channel, of features of length 1, on the first layer's grid: (B, C, h, w).

    Their sum over a layer's channels is minus the cosine.
    """
    size = student[0].shape[-2:]
    products = [-F.normalize(t, dim=1) * F.normalize(s, dim=1) for t, s in zip(teacher, student, strict=True)]
    return torch.cat([F.interpolate(p, size, mode="bilinear", align_corners=False) for p in products], 1)


class _Student(nn.Module):
    """From normalised images (B, 3, H, W) to the teacher's layers, by way of one that is deeper."""

    def __init__(self, teacher: Backbone) -> None:
        super().__init__()
        layers = list(teacher.layers)
        deepest = min(layers[-1] + 1, len(teacher.network.feature_info) - 1)
        self.ways = sorted({*layers, deepest})  # of the encoder; the grids of all, the values of the last
        self.encoder = student_network(teacher.name, self.ways)
        before = self.encoder.feature_info[deepest]["num_chs"]
        self.deep = residual_stage(before, before, 2)
        self.decoder = nn.ModuleList()
        for layer, channels in zip(layers[::-1], teacher.channels[::-1], strict=True):
            rectified = isinstance(getattr(teacher.network, f"layer{layer}", None), nn.Sequential)  # a ResNet's
            self.decoder.append(residual_stage(before, channels, 2, rectified=rectified))
            before = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        encoded = self.encoder.forward_intermediates(image, indices=self.ways, intermediates_only=True, stop_early=True)
        x, drawn = self.deep(encoded[-1]), []
        for up, like in zip(self.decoder, encoded[len(self.decoder) - 1 :: -1], strict=True):
            x = up(F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False))
            drawn.append(x)
        return drawn[::-1]
