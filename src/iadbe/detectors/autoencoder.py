"""A convolutional autoencoder of normal images; the score is the reconstruction error, as SSIM or squared difference.

It may be trained to remove noise from corrupted images (denoising autoencoder).

Paper: Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to
    Autoencoders", VISAPP 2019, 1807.02011. The layers are those of table 1; SSIM (Wang et al., 2004) has a window of
    11 x 11 pixels. Images of 256 x 256 pixels need one more convolution, as in Bergmann et al., "MVTec AD", CVPR 2019.
    Denoising: Vincent et al., "Stacked Denoising Autoencoders", JMLR 2010 (Gaussian and salt-and-pepper noise);
    Kascenas et al., "Denoising Autoencoders for Unsupervised Anomaly Detection in Brain MRI", MIDL 2022 (coarse noise:
    Gaussian noise of standard deviation 0.2, on a grid of 16 x 16 for images of 128 x 128, upsampled, and shifted by a
    random distance). The loss compares the reconstruction of the corrupted image with the original one; test images
    are not corrupted.
Differs:
    * The network sees whole images without augmentation. The papers crop 128 x 128 patches from textures, rotate and
      mirror.
    * SSIM of a colour image is the mean over its channels. Its window is a Gaussian of sigma 1.5, mirrored at the
      border.
    * Coarse noise is drawn per channel. The network has no skip connections, which Kascenas et al. have.
    * The map is smoothed. The image score is its maximum: in the CVPR paper one anomalous pixel makes an image
      anomalous.
Numbers: MVTec AD: pixel AUROC 87 (SSIM) and 82 (L2), AUPRO 69.4 and 79.0 (later papers' tables). Measured here at
    size 128, image AUROC of bottle: 85.6 (SSIM, 60 epochs) and 84.2 (L2, 40 epochs), both still rising,
    and 92.6 (SSIM, coarse noise, 60 epochs).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.conv_autoencoder import decoder, encoder
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import image_score, within
from iadbe.layers.features.similarity import ssim
from iadbe.layers.features.views import resized_images
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

Corruption = Literal["none", "gaussian", "salt", "coarse"]
COARSE = 8  # pixels of the image per cell of coarse noise


class Autoencoder(Detector):
    """Convolutional autoencoder with an SSIM or a squared (L2) loss."""

    paper = "Bergmann et al., Improving Unsupervised Defect Segmentation by Applying SSIM, VISAPP 2019, 1807.02011"
    year = 2019
    kind = "reconstruction"
    can = frozenset({"localise", "continue"})
    paper_view = {"resize": 256}
    paper_params = {}
    added = {"corruption": "none", "noise": 0.2}

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
        corruption: Literal["none", "gaussian", "salt", "coarse"] = "none",
        noise: float = 0.2,
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
            corruption: of training images: none, gaussian (noise of each value), salt (some pixels become 0 or 1) or
                coarse (smooth noise, of 8 pixels per cell)
            noise: standard deviation of gaussian and coarse noise; share of the pixels that salt changes
        """
        super().__init__()
        if loss not in ("ssim", "l2"):
            raise BadConfig(f"loss is ssim or l2, not {loss!r}.")
        if corruption not in get_args(Corruption):
            raise BadConfig(f"corruption is none, gaussian, salt or coarse, not {corruption!r}.")
        if noise <= 0 or (corruption == "salt" and noise > 1):
            raise BadConfig(f"noise must be above 0, and at most 1 for salt, not {noise:g}.")
        if window % 2 == 0 or not 3 <= window < size:
            raise BadConfig(f"window is an odd number from 3 to less than size, not {window}.")
        if min(latent, epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig("latent, epochs, batch and learning_rate must all be above 0.")
        self.loss, self.size, self.latent, self.window = loss, size, latent, window
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.corruption, self.noise = corruption, noise
        self.network = _network(size, latent)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        with seeded(rng):
            self.network = _network(self.size, self.latent).to(train.device)
        self.update(train, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate, weight_decay=1e-5)
        source = generator(rng, train.device) if self.corruption != "none" else torch.Generator()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, source)):
            image = resized_images(batch.image, self.size)
            error = self._error(image, corrupted(image, self.corruption, self.noise, source))
            step(optimizer, within(error, batch.region).mean())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        image = resized_images(batch.image, self.size)
        map_ = upsampled(self._error(image, image), batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    def _error(self, image: Tensor, seen: Tensor) -> Tensor:
        """Return the error of each pixel of images when the network sees ``seen``: (B, size, size), at least 0."""
        reconstruction = self.network(seen)
        error = (image - reconstruction).square() if self.loss == "l2" else 1 - ssim(image, reconstruction, self.window)
        return error.mean(1)


def corrupted(image: Tensor, corruption: Corruption, noise: float, source: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) with noise drawn from ``source``, which is on their device."""
    if corruption == "none":
        return image
    if corruption == "gaussian":
        return image + noise * torch.randn(image.shape, generator=source, device=image.device)
    if corruption == "salt":
        draw = torch.rand((len(image), 1, *image.shape[-2:]), generator=source, device=image.device)
        return torch.where(draw < noise, (draw < noise / 2).to(image), image)
    count, channels, height, width = image.shape
    cells = (count, channels, -(-height // COARSE), -(-width // COARSE))
    coarse = noise * torch.randn(cells, generator=source, device=image.device)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    shift = [int(torch.randint(side, (), generator=source, device=image.device)) for side in (height, width)]
    return image + smooth.roll(shift, (2, 3))


def _network(size: int, latent: int) -> nn.Sequential:
    """Make the encoder and the mirrored decoder: (B, 3, size, size) to the same shape."""
    layers = [*encoder(size, latent), *decoder(size, latent)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # quicker on processors
