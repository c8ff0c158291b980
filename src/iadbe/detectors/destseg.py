"""A denoising student and a frozen teacher, compared by a segmentation network; the score is its probability.

Paper: Zhang et al., "DeSTSeg: Segmentation Guided Denoising Student-Teacher for Anomaly Detection", CVPR 2023,
    2211.11317. Synthetic defects, foreign textures with an opacity of 0.2 to 1 in regions of Perlin noise, corrupt the
    training images. First the student is trained: an untrained encoder one layer deeper than the teacher and a decoder
    of two residual blocks per layer see the corrupted image, and the loss is the cosine distance to the teacher's
    features of the normal image. Then the segmentation network is trained with the student frozen. Both networks see
    the corrupted image; the products of their normalised features, all on the finest grid, pass two residual blocks
    and an ASPP. The losses on the mask are focal and L1. The map is the probability; the image score is the mean of
    its 100 highest pixels.
Differs:
    * Without a folder of textures they are drawn, or made of shuffled tiles of the image itself. The paper takes the
      Describable Textures Dataset.
    * Textures are recoloured.
    * Images are not rotated. The authors rotate by up to 5° (wood, zipper, cable) or by any multiple of 90° and up to
      5° (bottle, carpet, grid, hazelnut, leather, screw, tile).
    * A step always has ``batch`` images: if fewer are left, they are repeated with other defects. The authors drop
      the last incomplete batch.
    * The last block of a decoder layer has no ReLU where the teacher's layer has none.
    * If the teacher has no deeper layer, the student's encoder ends with its last one.
    * With a time budget, the student gets at most half of it.
Numbers: MVTec AD, ResNet-18, 256: image AUROC 98.6, pixel AUROC 97.9, pixel AP 75.8. All categories together (ADer):
    image AUROC 96.4, AUPRO 83.4. Measured here on the drawn metal at 128 after only 100 steps of 8 images, width 32:
    image AUROC 92.2, pixel AUROC 93.8. On a CPU alone the paper's 5000 steps take days.
"""

from __future__ import annotations

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
from iadbe.layers.features.region import image_score, mean_score, within
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
STUDENT_STEPS = 0.2  # share of the steps that train the student: 1000 of 5000
STUDENT_TIME = 0.5  # share of a time budget for the student, at most


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
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        width: int = 256,
        textures: str = "",
        steps: int = 5000,
        learning_rate: float = 0.4,
        batch: int = 32,
        top: int = 100,
    ) -> None:
        """Set up an untrained detector.

        Args:
            backbone: any convolutional timm model: the teacher, and the architecture of the student's encoder
            layers: layers that are compared, in ascending order
            weights: of the teacher: a file, auto or none
            width: channels of the segmentation network
            textures: a folder of texture images; empty: textures are drawn
            steps: number of training steps, a fifth of them for the student
            learning_rate: of the student; a quarter of it for the residual blocks of the segmentation network,
                a fortieth for its head
            batch: images per step
            top: number of pixels whose mean is the image score
        """
        super().__init__()
        if min(width, top) < 1 or min(steps, batch) < 2 or learning_rate <= 0:
            raise BadConfig("width, top and learning_rate must all be above 0, steps and batch at least 2.")
        if list(layers) != sorted(set(layers)):
            raise BadConfig(f"layers must be different and in ascending order, not {list(layers)}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.width, self.steps, self.batch, self.top = width, steps, batch, top
        self.learning_rate = learning_rate
        self.textures = TextureSource(textures, shuffled=0.0 if textures else 0.5)
        self._reset()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._reset()
        self.to(train.device).eval()
        student_steps = max(1, round(STUDENT_STEPS * self.steps))
        with progress.budget_share(STUDENT_TIME):
            self._train_student(train, student_steps, rng)
        self._train_segmentation(train, self.steps - student_steps, rng)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        products = feature_products(self.backbone(batch), self._student(batch.image))
        map_ = upsampled(
            self.segmentation(products)[:, 0].sigmoid(), batch.image.shape[-2:], sigma=0, region=batch.region
        )
        return Prediction(image_score(map_, batch.region, self.top), map_)

    def _reset(self) -> None:
        """Make an untrained student and segmentation network; torch's generator draws their weights."""
        self.student = _Student(self.backbone)
        residual = residual_stage(sum(self.backbone.channels), self.width, 2)
        head = nn.Sequential(ASPP(self.width, self.width), conv_norm_relu(self.width, self.width, 3))
        self.segmentation = nn.Sequential(residual, head, nn.Conv2d(self.width, 1, 1))

    def _train_student(self, train: Images, steps: int, rng: np.random.Generator) -> None:
        """Train the student to predict the normal image's features from the corrupted image."""
        optimizer = torch.optim.SGD(self.student.parameters(), self.learning_rate, momentum=0.9, weight_decay=1e-4)
        cached = FeatureCache(self.backbone)
        self.student.train()
        with gradient_checkpointing(self.student):
            for batch, repeats, corrupted, _, region in self._corrupted(train, steps, rng, optimizer):
                pairs = zip(cached(batch), self._student(corrupted), strict=True)
                errors = [1 - F.cosine_similarity(t[repeats], s) for t, s in pairs]  # (B, h, w)
                step(optimizer, torch.stack([mean_score(error, region).sum() for error in errors]).sum())
        self.student.eval()

    def _train_segmentation(self, train: Images, steps: int, rng: np.random.Generator) -> None:
        """Train the segmentation network to predict the mask from teacher's and student's features."""
        residual, head, last = self.segmentation
        lower_rate = {"params": [*head.parameters(), *last.parameters()], "lr": self.learning_rate / 40}
        groups = [{"params": residual.parameters()}, lower_rate]
        optimizer = torch.optim.SGD(groups, self.learning_rate / 4, momentum=0.9, weight_decay=1e-4)
        self.segmentation.train()
        for _, _, corrupted, mask, region in self._corrupted(train, steps, rng, optimizer):
            with torch.no_grad():
                products = feature_products(self.backbone(corrupted), self._student(corrupted))
            logits = self.segmentation(products)
            truth = F.interpolate(mask.float(), logits.shape[-2:], mode="bilinear", align_corners=False) >= 0.5
            logits, truth = within(logits, region), within(truth, region)
            step(optimizer, focal_loss(logits, truth) + F.l1_loss(logits.sigmoid(), truth.float()))
        self.segmentation.eval()

    def _corrupted(
        self, train: Images, steps: int, rng: np.random.Generator, optimizer: torch.optim.Optimizer
    ) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor, Tensor | None]]:
        """Yield a batch, the indices (B,) of its images in the step, these corrupted, their masks, and their region."""
        source = generator(rng)
        for batch in loop(train, steps=steps, batch=self.batch, rng=rng, state=(optimizer, source)):
            repeats = batch.cycled(self.batch)
            shown = batch.taken(repeats)
            image = shown.image
            mask = perlin_masks(len(image), *image.shape[-2:], source).to(image.device)
            corrupted = blended(image, mask, self.textures(image, source), source, OPACITY)
            yield batch, repeats, corrupted, mask, shown.region

    def _student(self, image: Tensor) -> list[Tensor]:
        """Return the student's features of images (B, 3, H, W), per layer."""
        return self.student((image - self.backbone.mean) / self.backbone.std)


def feature_products(teacher: list[Tensor], student: list[Tensor]) -> Tensor:
    """Return minus the elementwise products of unit-length features, on the first layer's grid: (B, C, h, w).

    Their sum over a layer's channels is minus the cosine.
    """
    size = student[0].shape[-2:]
    products = [-F.normalize(t, dim=1) * F.normalize(s, dim=1) for t, s in zip(teacher, student, strict=True)]
    return torch.cat([F.interpolate(p, size, mode="bilinear", align_corners=False) for p in products], 1)


class _Student(nn.Module):
    """Encoder-decoder from normalised images (B, 3, H, W) to features shaped like the teacher's layers."""

    renamed_tensors = {"deep": "bottleneck"}

    def __init__(self, teacher: Backbone) -> None:
        super().__init__()
        layers = list(teacher.layers)
        deepest = min(layers[-1] + 1, len(teacher.network.feature_info) - 1)
        self.indices = sorted({*layers, deepest})  # of the encoder: the sizes of all, the values of the last
        self.encoder = student_network(teacher.name, self.indices)
        channels_in = self.encoder.feature_info[deepest]["num_chs"]
        self.bottleneck = residual_stage(channels_in, channels_in, 2)
        self.decoder = nn.ModuleList()
        for layer, channels in zip(layers[::-1], teacher.channels[::-1], strict=True):
            rectified = isinstance(getattr(teacher.network, f"layer{layer}", None), nn.Sequential)  # a ResNet's
            self.decoder.append(residual_stage(channels_in, channels, 2, rectified=rectified))
            channels_in = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        encoded = self.encoder.forward_intermediates(
            image, indices=self.indices, intermediates_only=True, stop_early=True
        )
        x, decoded = self.bottleneck(encoded[-1]), []
        for up, encoded_layer in zip(self.decoder, encoded[len(self.decoder) - 1 :: -1], strict=True):
            x = up(F.interpolate(x, encoded_layer.shape[-2:], mode="bilinear", align_corners=False))
            decoded.append(x)
        return decoded[::-1]
