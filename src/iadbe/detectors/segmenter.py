"""A supervised segmentation network, trained on labelled defects: what labels would buy; its logits are the score.

Paper: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, 1505.04597:
    a decoder that doubles the grid and sees the encoder's output of the same scale. The encoder is a pretrained network
    that is trained on, as is usual since. Half of each batch are labelled anomalies; the loss of the masks is the sum
    of cross-entropy and Dice loss. A baseline: it knows the defects that were labelled, and not what is normal.
Differs:
    * The grid is doubled by bilinear interpolation, with batch norms after the convolutions, which keep the grid.
    * An anomaly without a mask trains the image score alone: the mean of the highest logits, by cross-entropy.
    * Images are mirrored and rotated by quarter turns. The paper also deforms them.
Numbers: none, a baseline.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.encoder import Encoder
from iadbe.layers.blocks.unet import convolution, stage
from iadbe.layers.features.region import joined, within
from iadbe.layers.training.anomalies import anomaly_source, labels_needed
from iadbe.layers.training.deviation import top_mean
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import dice_loss
from iadbe.types import Prediction

PRETRAINED = 0.1  # share of the learning rate that a pretrained encoder gets


class Segmenter(Detector):
    """U-Net on a pretrained encoder."""

    paper = (
        "Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, 1505.04597"
    )
    year = 2015
    kind = "supervised"
    needs_for = {"anomalies": {"labelled": ["labels"]}}
    can = frozenset({"localise", "labelled"})
    paper_view = {"resize": 512}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (0, 1, 2, 3),
        weights: str = "auto",
        anomalies: Literal["labelled", "synthetic"] = "labelled",
        textures: str = "",
        width: int = 32,
        top: float = 0.001,
        steps: int = 1000,
        learning_rate: float = 1e-3,
        batch: int = 8,
    ) -> None:
        """Choose network and training.

        Args:
            backbone: any convolutional timm model; it is trained
            layers: layers that the decoder sees, finest first, each half as fine as the one before
            weights: with which training starts: a file, auto or none
            anomalies: labelled training images, or synthetic ones, which need no labels
            textures: of synthetic anomalies: a folder of texture images; empty: textures are drawn
            width: channels of the decoder at its finest scale; twice as many at each coarser one, up to eight times
            top: share of the pixels whose mean logit is the image score, above 0 and up to 1
            steps: number of training steps
            learning_rate: of AdamW, at the start of half a cosine; a tenth of it for a pretrained encoder
            batch: images per step, half of them anomalies
        """
        super().__init__()
        self.needs = self.needs | labels_needed(anomalies)
        if min(width, steps) < 1 or batch < 2 or learning_rate <= 0 or not 0 < top <= 1:
            raise BadConfig(
                "width, steps and learning_rate must be above 0, batch at least 2, and top above 0 and up to 1."
            )
        self.backbone, self.layers, self.initial, self.anomalies = backbone, layers, weights, anomalies
        self.textures, self.width, self.top, self.steps = textures, width, top, steps
        self.learning_rate, self.batch = learning_rate, batch
        self._initialise()

    def weights(self) -> str:
        return self.encoder.description

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        others = anomaly_source(self.anomalies, train, self.textures)
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device).train()
        source = generator(rng)
        slower = 1.0 if self.initial == "none" else PRETRAINED
        groups = [
            {"params": self.encoder.parameters(), "lr": slower * self.learning_rate},
            {"params": self.decoder.parameters()},
        ]
        optimizer = torch.optim.AdamW(groups, self.learning_rate)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        half = self.batch // 2
        for batch in loop(train, steps=self.steps, batch=half, rng=rng, state=(optimizer, rate, source)):
            normal, counts = (shown := batch.taken(batch.cycled(half))).image, shown.region
            defective, mask, known, theirs = others(normal, source, counts)
            region = joined((normal, counts), (defective, theirs))
            image = torch.cat([normal, defective])
            mask = torch.cat([torch.zeros_like(mask), mask])
            known = torch.cat([torch.ones_like(known), known])
            image, mask, region = mirrored(image, mask, region, source)
            logits = self._logits(image)
            score = top_mean(logits, self.top, region)
            loss = segmentation_loss(logits, mask[:, 0], known, region)
            step(optimizer, loss + unmasked_loss(score, known))
            rate.step()
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        logits = self._logits(batch.image)
        return Prediction(top_mean(logits, self.top, batch.region), logits)

    def _initialise(self) -> None:
        """Make the network that training starts from; torch's generator draws what is not pretrained."""
        self.encoder = Encoder(self.backbone, self.initial, self.layers)
        self.decoder = _Decoder(self.encoder.pyramid_channels, self.width)

    def _logits(self, image: Tensor) -> Tensor:
        """Return the logits of a defect at each pixel (B, H, W)."""
        return self.decoder(self.encoder.pyramid(image), image.shape[-2:])


class _Decoder(nn.Module):
    """From feature maps (B, C, h, w), finest first, to logits (B, H, W)."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        widths = [width * min(8, 2**scale) for scale in range(len(channels))]
        self.deepest = convolution(channels[-1], widths[-1])
        self.up = nn.ModuleList(
            stage(coarse + beside, fine, fine)
            for (fine, coarse), beside in zip(pairwise(widths), channels[:-1], strict=True)
        )
        self.full = convolution(width, width)
        self.last = nn.Conv2d(width, 1, 1)
        self.to(memory_format=torch.channels_last)  # quicker on processors

    def forward(self, features: list[Tensor], size: tuple[int, ...]) -> Tensor:
        x = self.deepest(features[-1])
        for block, beside in zip(reversed(self.up), features[-2::-1], strict=True):  # type: ignore[call-overload]
            x = block(torch.cat([_resized(x, beside.shape[-2:]), beside], 1))
        return self.last(self.full(_resized(x, size)))[:, 0]


def segmentation_loss(logits: Tensor, mask: Tensor, known: Tensor, region: Tensor | None = None) -> Tensor:
    """Return the sum () of mean cross-entropy and Dice loss of logits (B, H, W) whose mask (B, H, W) is known (B,).

    Pixels that do not count by ``region`` (B, H, W) are left out.
    """
    counts = None if region is None else region[known]
    logits, truth = within(logits[known], counts), within(mask[known].to(logits), counts)
    dice = dice_loss(logits.sigmoid()[None], truth[None], squared=False)  # of the batch as one image
    return F.binary_cross_entropy_with_logits(logits, truth) + dice


def unmasked_loss(score: Tensor, known: Tensor) -> Tensor:
    """Return the mean cross-entropy () of the scores (B,) of anomalies whose mask is not known; 0 without any."""
    unknown = score[~known]
    if not len(unknown):
        return score.sum() * 0
    return F.softplus(-unknown).mean()


def mirrored(
    image: Tensor, mask: Tensor, region: Tensor | None, source: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mirror and rotate images (B, 3, H, W), masks (B, 1, H, W) and their region (B, H, W) alike.

    They are rotated by quarter turns, only if they are square.
    """
    if region is not None:
        image, both, _ = mirrored(image, torch.cat([mask, region[:, None]], 1), None, source)
        return image, both[:, :1], both[:, 1]
    across, down, turn = (torch.rand(3, generator=source) < 0.5).tolist()
    if across:
        image, mask = image.flip(3), mask.flip(3)
    if down:
        image, mask = image.flip(2), mask.flip(2)
    if turn and image.shape[2] == image.shape[3]:
        image, mask = image.transpose(2, 3), mask.transpose(2, 3)
    return image, mask, None


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
