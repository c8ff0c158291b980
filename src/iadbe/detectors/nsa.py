"""An encoder-decoder segments patches of other images that were blended in seamlessly; its output is the score.

Paper: Schlüter et al., "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization" (NSA), ECCV
    2022, 2109.15222. Patches with gamma-distributed sides are cut from another normal image where there is enough of
    the object, resized, and put into the image by Poisson blending where objects overlap. A ResNet-18 encoder with a
    light decoder, from scratch, predicts for each pixel whether it changed (binary), by how much (continuous, squared
    error) or a logistic function of that (logistic). The map is the prediction, the image score its mean.
Differs:
    * Blending is exact (see :mod:`iadbe.layers.synthetic.poisson`). The authors use OpenCV's seamlessClone.
    * The learning rate falls with every step along the cosine, not with every epoch.
    * Random crops of 224 from 230 pixels (objects) or 256 from 264 (textures) are shifts of the view by as many pixels,
      in proportion to its size; what comes in from outside is mirrored.
    * For objects the authors measure pixels on 256 x 256, with zeros around the map of the middle 224 x 224.
Numbers: MVTec AD, logistic, mean of five: image AUROC 97.2, pixel AUROC 96.3, AUPRO 91.0. Bounds, background and labels
    are chosen per category (``paper_by_category``).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.residual import he_initialised, residual_stage
from iadbe.layers.blocks.strided_pointwise import DoublingPointwise
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import mean_score, moved_alike, within
from iadbe.layers.features.views import warped_images
from iadbe.layers.synthetic.foreground import unlike_background
from iadbe.layers.synthetic.natural_anomalies import PatchRules, anomaly_label, natural_anomaly
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # by which the network's input is normalised
LAST_RATE = 1e-6  # learning rate at the end of the cosine


class NSA(Detector):
    """Segmentation of Poisson-blended patches."""

    paper = "Schlüter et al., Natural Synthetic Anomalies for Self-Supervised Anomaly Detection, ECCV 2022, 2109.15222"
    year = 2022
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {}
    paper_by_category = {
        "mvtec_ad/bottle": {
            "background": 200,
            "tolerance": 60,
            "min_object": 0.7,
            "slope": 0.0833,
            "middle": 24,
            "rotation": 5,
        },
        "mvtec_ad/cable": {"half_height": (0.05, 0.4), "half_width": (0.05, 0.4), "slope": 0.0833, "middle": 24},
        "mvtec_ad/capsule": {
            "background": 200,
            "tolerance": 60,
            "min_object": 0.7,
            "half_height": (0.03, 0.15),
            "slope": 0.5,
            "middle": 4,
        },
        "mvtec_ad/hazelnut": {
            "background": 20,
            "tolerance": 20,
            "min_object": 0.7,
            "half_height": (0.03, 0.35),
            "half_width": (0.03, 0.35),
            "slope": 0.0833,
            "middle": 24,
            "rotation": 5,
            "epochs": 560,
        },
        "mvtec_ad/metal_nut": {
            "background": 20,
            "tolerance": 20,
            "min_object": 0.5,
            "slope": 0.3333,
            "middle": 7,
            "rotation": 5,
            "epochs": 560,
        },
        "mvtec_ad/pill": {
            "background": 20,
            "tolerance": 20,
            "min_object": 0.7,
            "half_height": (0.03, 0.2),
            "slope": 0.3333,
            "middle": 7,
        },
        "mvtec_ad/screw": {
            "background": 200,
            "tolerance": 60,
            "min_object": 0.5,
            "patches": 4,
            "half_height": (0.03, 0.12),
            "half_width": (0.03, 0.12),
            "slope": 1.0,
            "middle": 3,
            "rotation": 5,
            "epochs": 560,
        },
        "mvtec_ad/toothbrush": {
            "background": 20,
            "tolerance": 20,
            "min_object": 0.25,
            "half_width": (0.03, 0.2),
            "middle": 15,
        },
        "mvtec_ad/transistor": {"middle": 15},
        "mvtec_ad/zipper": {
            "background": 200,
            "tolerance": 60,
            "min_object": 0.7,
            "patches": 4,
            "half_width": (0.03, 0.2),
            "middle": 15,
        },
        "mvtec_ad/carpet": {
            "mixed": True,
            "patches": 4,
            "resize": (0.5, 2.0),
            "flip": True,
            "shift": 0.0156,
            "slope": 0.3333,
            "middle": 7,
        },
        "mvtec_ad/grid": {
            "mixed": True,
            "patches": 4,
            "resize": (0.5, 2.0),
            "flip": True,
            "shift": 0.0156,
            "slope": 0.3333,
            "middle": 7,
        },
        "mvtec_ad/leather": {
            "mixed": True,
            "patches": 4,
            "resize": (0.5, 2.0),
            "flip": True,
            "shift": 0.0156,
            "slope": 0.3333,
            "middle": 7,
        },
        "mvtec_ad/tile": {
            "mixed": True,
            "patches": 4,
            "resize": (0.5, 2.0),
            "flip": True,
            "shift": 0.0156,
            "slope": 0.3333,
            "middle": 7,
        },
        "mvtec_ad/wood": {
            "mixed": True,
            "patches": 4,
            "resize": (0.5, 2.0),
            "flip": True,
            "shift": 0.0156,
            "slope": 0.1667,
            "middle": 15,
        },
    }

    def __init__(
        self,
        label: Literal["logistic", "binary", "continuous"] = "logistic",
        slope: float = 0.1667,
        middle: float = 20.0,
        mixed: bool = False,
        patches: int = 3,
        half_height: tuple[float, float] = (0.03, 0.4),
        half_width: tuple[float, float] = (0.03, 0.4),
        resize: tuple[float, float] = (0.7, 1.3),
        background: int = -1,
        tolerance: int = 20,
        min_object: float = 0.25,
        min_overlap: float = 0.25,
        shift: float = 0.0134,
        rotation: float = 0.0,
        flip: bool = False,
        width: int = 64,
        epochs: int = 320,
        learning_rate: float = 1e-3,
        batch: int = 64,
    ) -> None:
        """Choose the label, how patches are made, and the training.

        Args:
            label: what is predicted: logistic (of the change), binary, or continuous (the change in levels)
            slope: of the logistic function, per level of 255
            middle: change in levels at which the logistic function is 1/2
            mixed: blend with mixed gradients (textures), not with the patch's alone (objects)
            patches: most patches per image; each after the first comes with probability 1/2
            half_height: least and greatest half of a patch's height, as a share of the image's
            half_width: the same across
            resize: least and greatest factor by which a patch is resized
            background: brightness of the background, 0 to 255; -1: all is object
            tolerance: difference in levels from the background above which a pixel is object
            min_object: share of a patch that must be object
            min_overlap: share of a patch's object that must fall on the image's
            shift: by which training images are shifted at most, as a share of their side
            rotation: by which training images are rotated at most, in degrees
            flip: turn half of the training images upside down
            width: channels of the encoder's first stage
            epochs: passes over the training images
            learning_rate: of Adam at the start of a cosine
            batch: images per step
        """
        super().__init__()
        if label not in ("logistic", "binary", "continuous"):
            raise BadConfig(f"label is logistic, binary or continuous, not {label!r}.")
        if min(epochs, batch) < 1 or width < 4 or min(slope, learning_rate) <= 0:
            raise BadConfig("epochs, batch, slope and learning_rate must be above 0, width at least 4.")
        if not (-1 <= background <= 255 and 0 <= shift < 0.5):
            raise BadConfig("background is -1 to 255, shift at least 0 and below 0.5.")
        self.label, self.slope, self.middle = label, slope, middle
        self.background, self.tolerance = background, tolerance
        half = tuple(half_height), tuple(half_width)
        self.rules = PatchRules(patches, *half, tuple(resize), min_object, min_overlap, mixed)
        self.shift, self.rotation, self.flip = shift, rotation, flip
        self.width, self.epochs, self.learning_rate, self.batch = width, epochs, learning_rate, batch
        self.network = _EncoderDecoder(width)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.network = _EncoderDecoder(self.width)
        self.to(train.device)
        source = generator(rng)
        optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate)
        steps = self.epochs * -(-len(train) // self.batch)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, LAST_RATE)
        self.network.train()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, cosine, source)):
            image, region = self._moved(batch, source)
            image, truth = self._anomalies(image, source)
            step(optimizer, self._loss(within(self.network(image)[:, 0], region), within(truth, region)))
            cosine.step()
        self.network.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        output = self.network(batch.image)[:, 0]
        predicted = output.relu() if self.label == "continuous" else output.sigmoid()
        return Prediction(
            mean_score(predicted, batch.region),
            upsampled(predicted, batch.image.shape[-2:], sigma=0, region=batch.region),
        )

    def _loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the loss () of outputs before the last activation and labels, of one shape."""
        if self.label == "continuous":
            return F.mse_loss(output.relu(), truth)
        return F.binary_cross_entropy_with_logits(output, truth)

    def _moved(self, batch: Batch, source: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Shift, rotate and flip images at random; return them (B, 3, H, W) and their region."""
        drawn = 2 * torch.rand(4, len(batch), generator=source).to(batch.image.device) - 1
        angle = drawn[0] * (self.rotation * np.pi / 180)
        cos, sin, shift = angle.cos(), angle.sin(), 2 * self.shift * drawn[1:3]
        upright = torch.where((drawn[3] < 0) & self.flip, -1.0, 1.0)
        rows = [torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin * upright, cos * upright, shift[1]], 1)]
        matrix = torch.stack(rows, 1)
        return moved_alike(lambda x: warped_images(x, matrix), batch.image, batch.region)

    def _anomalies(self, image: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend patches of the batch's next image into each image (B, 3, H, W); labels are (B, H, W)."""
        objects = None
        if self.background >= 0:
            objects = unlike_background(image, self.background, self.tolerance)[:, 0]
        made = []
        for number, one in enumerate(image):
            other = (number + 1) % len(image)
            masks = None if objects is None else (objects[number], objects[other])
            changed, mask = natural_anomaly(one, image[other], source, self.rules, masks)
            label, levels = anomaly_label(one, changed, mask)
            made.append((changed, self._truth(label, levels)))
        images, truth = zip(*made, strict=True)
        return torch.stack(images), torch.stack(truth)

    def _truth(self, label: Tensor, levels: Tensor) -> Tensor:
        """Return what the network shall predict, given which pixels changed (H, W) and by how many levels (H, W)."""
        if self.label == "continuous":
            return levels
        if self.label == "logistic":
            return label * (self.slope * (levels - self.middle)).sigmoid()
        return label.to(levels)


class _EncoderDecoder(nn.Module):
    """From images (B, 3, H, W) in [0, 1] to one value per pixel before the last activation: (B, 1, H, W)."""

    def __init__(self, width: int = 64) -> None:
        """Make a ResNet-18 and its decoder, with ``width`` channels in the first stage (the paper: 64)."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        first = he_initialised(nn.Conv2d(3, width, 7, 2, 3, bias=False))
        self.encoder = nn.Sequential(
            *(first, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
            residual_stage(width, width, 2),
            *(residual_stage(width << k, width << (k + 1), 2, "halve") for k in range(3)),
        )
        self.bottleneck = nn.Sequential(
            *(he_initialised(nn.Conv2d(8 * width, 4 * width, 1, bias=False)), nn.ReLU(inplace=True)),
            *(he_initialised(nn.Conv2d(4 * width, 2 * width, 1, bias=False)), nn.ReLU(inplace=True)),
        )
        self.decoder = nn.Sequential(
            *(_UpBlock(2 * width >> k, width >> k) for k in range(3)),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.ConvTranspose2d(width // 4, 1, 7, 2, 3, output_padding=1, bias=False),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        x = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        height, width = image.shape[-2:]
        output = self.decoder(self.bottleneck(self.encoder(x)))
        if output.shape[-2:] == image.shape[-2:]:
            return output
        return F.interpolate(output, (height, width), mode="bilinear", align_corners=False)


class _UpBlock(nn.Module):
    """A residual block of transposed convolutions that doubles the grid: (B, before, h, w) to (B, after, 2h, 2w)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1, bias=False),
            *(nn.BatchNorm2d(after), nn.ReLU(inplace=True)),
            *(nn.ConvTranspose2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)),
        )
        self.shortcut = nn.Sequential(DoublingPointwise(before, after), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return (self.branch(x) + self.shortcut(x)).relu()
