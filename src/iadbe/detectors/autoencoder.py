"""A convolutional autoencoder of normal images; what it cannot draw again is anomalous.

Paper: Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
    Autoencoders", VISAPP 2019, 1807.02011: layers of table 1, SSIM (Wang et al., 2004) over 11 x 11 pixels.
    For 256 x 256 images the same with one more convolution, as in Bergmann et al., "MVTec AD", CVPR 2019.
Differs: whole images without augmentation (the papers crop 128 x 128 from textures, and turn and mirror); colour
    SSIM is the mean over the channels; Gaussian window of sigma 1.5, mirrored at the border; the map is smoothed;
    an image's score is its map's largest value, as one anomalous pixel makes an image anomalous in the CVPR paper.
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
from iadbe.layers.features.anomaly_map import gaussian_matrix, upsampled
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

# table 1 without its first rows: channels, kernel, stride, padding; every row before halves 32 channels' grid
TAIL = ((32, 3, 1, 1), (64, 4, 2, 1), (64, 3, 1, 1), (128, 4, 2, 1), (64, 3, 1, 1), (32, 3, 1, 1))
HALVING = (32, 4, 2, 1)
GRID = 8  # side of the last grid, which one kernel turns into the code


class Autoencoder(Detector):
    """Convolutional autoencoder with a structural or a squared loss."""

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
        """Choose the loss, the network, and how long it learns.

        Args:
            loss: ssim, one minus the structural similarity, or l2, the squared difference; also the map's measure
            size: side in pixels to which images are brought for the network: 32, 64, 128, 256 or 512
            latent: values of the code in the middle
            window: side of SSIM's window, odd
            epochs: how often every training image is shown
            learning_rate: of Adam with weight decay 1e-5
            batch: images per step
            sigma: smoothing of the map, pixels
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
        """Return how badly each pixel is drawn again: (B, size, size), 0 where it is perfect."""
        image = batch.image
        if image.shape[-2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        again = self.network(image)
        wrong = (image - again).square() if self.loss == "l2" else 1 - ssim(image, again, self.window)
        return wrong.mean(1)


def ssim(x: Tensor, y: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity of (B, C, H, W), values in [0, 1], around each pixel: between -1 and 1."""
    down, across = (gaussian_matrix(side, sigma, window // 2, x) for side in x.shape[-2:])
    mx, my, squares, xy = (down @ part @ across.T for part in (x, y, x * x + y * y, x * y))
    c1, c2 = 0.01**2, 0.03**2
    means = mx * mx + my * my
    luminance = (2 * mx * my + c1) / (means + c1)
    structure = (2 * (xy - mx * my) + c2) / (squares - means + c2)
    return luminance * structure


def _network(size: int, latent: int) -> nn.Sequential:
    """Make the encoder and, mirrored, the decoder: (B, 3, size, size) to the same."""
    halvings = int(math.log2(size // GRID)) - 2  # two are in the tail
    rows = [(3, 0, 0, 0), *[HALVING] * halvings, *TAIL, (latent, GRID, 1, 0)]
    layers: list[nn.Module] = []
    for (before, *_), (after, *shape) in pairwise(rows):
        layers += [nn.Conv2d(before, after, *shape), nn.LeakyReLU(0.2)]
    layers.pop()  # the code is linear, and so is the drawing
    for (after, *_), (before, *shape) in reversed(list(pairwise(rows))):
        layers += [nn.ConvTranspose2d(before, after, *shape), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)  # quicker on processors
