"""A diffusion model restores the normal image in one step, and a network segments what has changed.

Paper: Zhang et al., "DiffusionAD: Norm-guided One-step Denoising Diffusion for Anomaly Detection", 2023, 2303.08730
    (TPAMI 2025). Noise is added to an image at two scales: little (t below 300), which keeps the image, and much, which
    hides its defects. The network predicts both noises. The estimate of the clean image from the much noised one, with
    the noise of the other predicted for it, guides the estimate from the little noised one: ε̂ is ε minus √(1 - ᾱ)
    times their difference. A U-Net sees the image and the guided estimate and predicts the mask. Half of the training
    images have a synthetic defect; the squared error of the noise is of the others, focal loss (γ = 4) and smooth L1
    loss of the mask are of all. Testing takes t = 200 and 400; the image score is the mean of the 50 highest pixels.
    Constants are those of the authors' code: there the larger t is drawn from all of 300 to 1000 (600 in its settings
    is not used), images are in [0, 1], and the U-Net's learning rate falls to 0 and rises again every 20 steps.
Differs:
    * Objects are found by Otsu's method in each image. The authors take masks of a segmentation network (DIS), and for
      textures a random region.
    * Without a folder of textures they are drawn. The paper takes the Describable Textures Dataset.
    * An image's own tiles are shuffled freely; the authors shuffle those of even and of odd columns among themselves.
    * The noise of a test image is the same for all of them, drawn in training; the authors draw it anew for each.
    * The last epoch counts. The authors keep the one with the best metrics on the test images.
    * A step always has ``batch`` images: if fewer are left, they are repeated.
Numbers: MVTec AD at 256: image AUROC 99.7, pixel AUROC 98.7, AUPRO 95.7; VisA: 98.8, 98.9 and 96.0.
"""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.diffusion_unet import DiffusionUNet, scales
from iadbe.layers.blocks.unet import UNet
from iadbe.layers.features.region import image_score, mean_score, within
from iadbe.layers.features.views import resized_images
from iadbe.layers.synthetic.augmentations import augmented
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.foreground import object_mask
from iadbe.layers.synthetic.perlin import perlin_masks_within
from iadbe.layers.synthetic.textures import TextureSource, shuffled_tiles
from iadbe.layers.training.diffusion import Network, NoiseSchedule, noise_like
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.types import Prediction

LITTLE = 300  # τ: times below it add little noise, the others much
TEST_TIMES = (200, 400)
GUIDANCE = 1.0  # weight of the difference that guides
DEFECTIVE = 0.5  # share of the training images that get a synthetic defect
OPACITY = (0.2, 0.8)  # of a defect
FOCAL_WEIGHT, ALPHA, GAMMA = 5.0, 0.5, 4.0
HALF_PERIOD = 10  # steps in which the learning rate of the segmentation falls from its highest to 0


class DiffusionAD(Detector):
    """Norm-guided one-step denoising and segmentation, trained on synthetic defects."""

    paper = "Zhang et al., DiffusionAD: Norm-guided One-step Denoising Diffusion, TPAMI 2025, arXiv 2303.08730"
    year = 2023
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_by_category = {
        "mvtec_ad/carpet": {"foreground": False, "own_tiles": 0.0},
        "mvtec_ad/grid": {"foreground": False, "own_tiles": 0.0},
        "mvtec_ad/leather": {"foreground": False, "own_tiles": 0.0},
        "mvtec_ad/tile": {"foreground": False, "own_tiles": 0.0},
        "mvtec_ad/wood": {"foreground": False, "own_tiles": 0.0},
        "mvtec_ad/zipper": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class1": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class2": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class3": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class4": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class5": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class6": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class7": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class8": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class9": {"foreground": False, "own_tiles": 0.0},
        "dagm/Class10": {"foreground": False, "own_tiles": 0.0},
    }

    added = {"segmentation_width": 0}

    seed: Tensor

    def __init__(
        self,
        size: int = 256,
        width: int = 128,
        attention: int = 32,
        foreground: bool = True,
        own_tiles: float = 0.5,
        textures: str = "",
        epochs: int = 3000,
        learning_rate: float = 1e-4,
        segmentation_rate: float = 1e-5,
        batch: int = 16,
        top: int = 50,
        segmentation_width: int = 0,
    ) -> None:
        """Set up untrained networks.

        Args:
            size: side in pixels to which images are resized, at least 16
            width: channels of the diffusion model at full size
            attention: side of the largest grid of the diffusion model whose positions attend to each other
            foreground: put synthetic defects on the object only, where one stands out
            own_tiles: share of the defects that are of the image's own shuffled tiles, from 0 to 1
            textures: a folder of texture images; empty: textures are drawn
            epochs: passes over the training images
            learning_rate: of the diffusion model (Adam)
            segmentation_rate: the highest learning rate of the segmentation (Adam)
            batch: images per step
            top: number of pixels, of size x size, whose mean is the image score
            segmentation_width: channels of the segmentation at full size; 0: half as many as the diffusion model has
        """
        super().__init__()
        if width < 2 or width % 2 or size < 16 or min(epochs, batch, top) < 1:
            raise BadConfig("width must be even, size at least 16, epochs, batch and top above 0.")
        if min(attention, segmentation_width) < 0:
            raise BadConfig("attention and segmentation_width must not be below 0.")
        if learning_rate <= 0 or segmentation_rate <= 0 or not 0 <= own_tiles <= 1:
            raise BadConfig("learning_rate and segmentation_rate must be above 0, own_tiles from 0 to 1.")
        self.size, self.width, self.attention, self.foreground = size, width, attention, foreground
        self.own_tiles, self.epochs, self.batch, self.top = own_tiles, epochs, batch, top
        self.learning_rate, self.segmentation_rate = learning_rate, segmentation_rate
        self.segmentation_width = segmentation_width or width // 2
        self.textures = TextureSource(textures, shuffled=0.0, recolour_foreign=False)
        self.schedule = NoiseSchedule()
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))  # of the noise of test images
        self._reset()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._reset()
        self.seed = torch.tensor(int(rng.integers(2**62)))
        self.to(train.device).train()
        source = generator(rng)
        optimizer = torch.optim.Adam(
            [
                {"params": self.denoising.parameters(), "lr": self.learning_rate},
                {"params": self.segmentation.parameters(), "lr": self.segmentation_rate},
            ]
        )
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, [lambda done: 1.0, lambda done: (1 + math.cos(math.pi * done / HALF_PERIOD)) / 2]
        )
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, rate, source)):
            shown = batch.taken(batch.cycled(self.batch))
            image, mask = self._with_defects(resized_images(shown.image, self.size), source)
            step(optimizer, self._loss(image, mask, source, shown.region))
            rate.step()
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        image = resized_images(batch.image, self.size)
        noises = [noise.expand_as(image) for noise in self._noises_of_test(image)]
        times = [torch.full((image.shape[0],), t) for t in TEST_TIMES]
        estimate, _ = norm_guided(self.schedule, self.denoising, image, times, noises, batch.region)
        map_ = self._logits(image, estimate).sigmoid()
        shown = F.interpolate(map_[:, None], batch.image.shape[-2:], mode="bilinear", align_corners=False)
        return Prediction(image_score(map_, batch.region, self.top), shown[:, 0])

    def for_export(self) -> Self:
        """Return this detector with the noises of the test, which an exported graph cannot draw."""
        shape = torch.empty(1, 3, self.size, self.size, device=self.seed.device)
        self.exported_noises = self._noises_of_test(shape)
        return self

    def _noises_of_test(self, image: Tensor) -> list[Tensor]:
        """Return the noise of little and of much time, the same for each of some images (B, 3, H, W)."""
        if torch.compiler.is_exporting():
            return self.exported_noises
        source = torch.Generator().manual_seed(int(self.seed))
        return [noise_like(image[:1], source) for _ in TEST_TIMES]

    def _reset(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        w = self.segmentation_width
        up = ((8 * w, 8 * w), (4 * w, 4 * w), (2 * w, 2 * w), (w, w), (w, w))
        self.denoising = DiffusionUNet(3, 3, self.width, *scales(self.size, self.attention))
        self.segmentation = UNet(6, 1, (w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w), up)
        self.to(memory_format=torch.channels_last)  # quicker on processors

    def _logits(self, image: Tensor, estimate: Tensor) -> Tensor:
        """Return the logits of a defect at each pixel (B, H, W), given images and their estimates (B, 3, H, W)."""
        both = torch.cat([image, estimate], 1).contiguous(memory_format=torch.channels_last)
        return self.segmentation(both)[:, 0]

    def _loss(self, image: Tensor, mask: Tensor, source: torch.Generator, region: Tensor | None = None) -> Tensor:
        """Return the loss () of images (B, 3, H, W), with the masks (B, H, W), bool, of their defects."""
        count = (len(image),)
        times = [
            torch.randint(LITTLE, count, generator=source),
            torch.randint(LITTLE, len(self.schedule), count, generator=source),
        ]
        noises = [noise_like(image, source) for _ in times]
        estimate, error = norm_guided(self.schedule, self.denoising, image, times, noises, region)
        logits, normal = self._logits(image, estimate), ~mask.flatten(1).any(1)
        noise_loss = (error * normal).sum() / normal.sum().clamp(min=1)
        logits, mask = within(logits, region), within(mask, region)
        focal = FOCAL_WEIGHT * ALPHA * focal_loss(logits, mask, GAMMA)
        return noise_loss + focal + F.smooth_l1_loss(logits.sigmoid(), mask.to(logits))

    def _with_defects(self, image: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W), half of them with a synthetic defect, and masks (B, H, W), bool."""
        count = len(image)
        defective, own = torch.rand(2, count, generator=source) < torch.tensor([[DEFECTIVE], [self.own_tiles]])
        mask, result = torch.zeros_like(image[:, :1], dtype=torch.bool), image.clone()
        if len(chosen := defective.nonzero()[:, 0].to(image.device)):
            part = image[chosen]
            region = object_mask(part) if self.foreground else torch.ones_like(mask[chosen])
            mask[chosen] = perlin_masks_within(region, source)
            own = own[defective].view(-1, 1, 1, 1)
            texture = augmented(torch.where(own, part.cpu(), self.textures(part, source).cpu()), source)
            texture = torch.where(own, shuffled_tiles(texture, source), texture).to(image.device)
            result[chosen] = blended(part, mask[chosen], texture, source, OPACITY)
        return result, mask[:, 0]


def norm_guided(
    schedule: NoiseSchedule,
    network: Network,
    image: Tensor,
    times: list[Tensor],
    noises: list[Tensor],
    region: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the estimate of the clean image (B, 3, H, W), and the mean squared error of both predicted noises (B,).

    Args:
        schedule: of the noise
        network: predicts noise
        image: (B, 3, H, W)
        times: of little and of much noise, (B,) each
        noises: ε of both, shaped like the image
        region: over which the error is a mean, (B, H, W) bool; None: all pixels
    """
    noised = [schedule.noised(image, t, noise) for t, noise in zip(times, noises, strict=True)]
    predicted, much = network(torch.cat(noised), torch.cat(times).to(image.device)).float().unflatten(0, (2, -1))
    error = mean_score((predicted - noises[0]).square(), region) + mean_score((much - noises[1]).square(), region)
    coarse = schedule.denoised(noised[1], times[1], much).clamp(-1, 1)
    difference = schedule.noised(coarse, times[0], predicted) - noised[0]
    guided = predicted - GUIDANCE * schedule.deviation(times[0], image) * difference
    return schedule.denoised(noised[0], times[0], guided).clamp(-1, 1), error
