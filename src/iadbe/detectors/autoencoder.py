"""A convolutional autoencoder of normal images; the score is the reconstruction error, as SSIM or squared difference.

Paper: Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
    Autoencoders", VISAPP 2019, 1807.02011. The layers are those of table 1; SSIM (Wang et al., 2004) has a window of
    11 x 11 pixels. Images of 256 x 256 pixels need one more convolution, as in Bergmann et al., "MVTec AD", CVPR 2019.
Differs:
    * The network sees whole images without augmentation. The papers crop 128 x 128 patches from textures, rotate and
      mirror.
    * SSIM of a colour image is the mean over its channels. Its window is a Gaussian of sigma 1.5, mirrored at the
      border.
    * The map is smoothed. The image score is its maximum: in the CVPR paper one anomalous pixel makes an image
      anomalous.
Numbers: MVTec AD: pixel AUROC 87 (SSIM) and 82 (L2), AUPRO 69.4 and 79.0 (later papers' tables). Measured here at
    size 128, image AUROC of bottle: 85.6 (SSIM, 60 epochs) and 84.2 (L2, 40 epochs), both still rising.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.similarity import ssim
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

# table 1 without its first rows: channels, kernel, stride, padding; the first rows are all DOWNSAMPLING
ENCODER_TAIL = ((32, 3, 1, 1), (64, 4, 2, 1), (64, 3, 1, 1), (128, 4, 2, 1), (64, 3, 1, 1), (32, 3, 1, 1))
DOWNSAMPLING = (32, 4, 2, 1)
CODE_GRID = 8  # side of the last feature map, which one kernel reduces to the code


class Autoencoder(Detector):
    """Convolutional autoencoder with an SSIM or a squared (L2) loss."""

    paper = "Bergmann et al., Improving Unsupervised Defect Segmentation by Applying SSIM, VISAPP 2019, 1807.02011"
    year = 2019
    kind = "reconstruction"
    can = frozenset({"localise", "continue"})
    paper_view = {"resize": 256}
    paper_params = {}

    def __init__(
        self,
        loss: Literal["ssim", "l2"] = "ssim",
        size: int = 256,
        latent: int = 100,
        window: int = 11,
        epochs: int = 200,
        learning_rate: float = 2e-4,
        batch: int = 16,
        sigma: float = 4.0,
    ) -> None:
        """Set up an untrained autoencoder.

        Args:
            loss: ssim (1 - SSIM) or l2 (squared difference); also the pixel score of the map
            size: side in pixels to which images are resized: 32, 64, 128, 256 or 512
            latent: dimension of the latent code
            window: side of the SSIM window in pixels, odd
            epochs: number of training epochs
            learning_rate: of Adam with weight decay 1e-5
            batch: images per step
            sigma: standard deviation of the Gaussian blur of the map, in pixels
        """
        super().__init__()
        if loss not in ("ssim", "l2"):
            raise BadConfig(f"loss is ssim or l2, not {loss!r}.")
        if size not in (32, 64, 128, 256, 512):
            raise BadConfig(f"size is 32, 64, 128, 256 or 512, not {size}.")
        if window % 2 == 0 or not 3 <= window < size:
            raise BadConfig(f"window is an odd number from 3 to less than size, not {window}.")
        if min(latent, epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig("latent, epochs, batch and learning_rate must all be above 0.")
        self.loss, self.size, self.latent, self.window = loss, size, latent, window
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.network = _network(size, latent)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        with seeded(rng):
            self.network = _network(self.size, self.latent).to(train.device)
        self.update(train, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate, weight_decay=1e-5)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
            step(optimizer, self._error(batch).mean())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        map_ = upsampled(self._error(batch), batch.image.shape[-2:], self.sigma)
        return Prediction(map_.amax((1, 2)), map_)

    def _error(self, batch: Batch) -> Tensor:
        """Return the reconstruction error of each pixel, mean over channels: (B, size, size), at least 0."""
        image = batch.image
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        reconstruction = self.network(image)
        error = (image - reconstruction).square() if self.loss == "l2" else 1 - ssim(image, reconstruction, self.window)
        return error.mean(1)


def _network(size: int, latent: int) -> nn.Sequential:
    """Make the encoder and the mirrored decoder: (B, 3, size, size) to the same shape."""
    downsamplings = int(math.log2(size // CODE_GRID)) - 2  # two more are in the tail
    rows = [(3, 0, 0, 0), *[DOWNSAMPLING] * downsamplings, *ENCODER_TAIL, (latent, CODE_GRID, 1, 0)]
    layers: list[nn.Module] = []
    for (inputs, *_), (outputs, *shape) in pairwise(rows):
        layers += [nn.Conv2d(inputs, outputs, *shape), nn.LeakyReLU(0.2)]
    layers.pop()  # the code is linear, and so is the reconstruction
    for (outputs, *_), (inputs, *shape) in reversed(list(pairwise(rows))):
        layers += [nn.ConvTranspose2d(inputs, outputs, *shape), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)  # quicker on processors
