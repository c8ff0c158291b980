"""A variational autoencoder that reconstructs an image and a frozen network's features of it.

Paper: Dehaene and Eline, "Anomaly localization by modeling perceptual features" (Feature-Augmented VAE), 2020,
    2008.05369. The layers of the decoder that have the grid of a layer of the frozen network predict that layer's
    features, each by an adapter of two 1 x 1 convolutions. The loss is the squared error of the image and of all
    features, summed over channels and pixels, plus the Kullback-Leibler divergence of the code. The map is the sum of
    these squared errors, upsampled to the image and smoothed; the image score is its maximum. There is no code of the
    authors; constants are those of the open implementation that IM-IAD has measured (xiahaifeng1995, M-3LAB/open-iad):
    VGG-16's relu2_2, relu3_3 and relu4_3, code of 100, batch norm, 128 x 128, Adam 0.005 with weight decay 1e-5.
Differs:
    * The features are any backbone's layers of strides 2, 4 and 8. Each of its feature maps is resized to the
      decoder's grid where the view is not ``size``.
    * The frozen network sees the view, the autoencoder the view resized to ``size``; there is no augmentation. The
      implementation above may rotate and mirror 10 000 copies.
    * There is no early stopping on held-out images; the last epoch counts.
    * The logarithm of the code's variance is limited to ±10.
Numbers: MVTec AD: pixel AUROC 95.3 (paper); image AUROC 79.3, pixel AUROC 88.9 (IM-IAD, 128, 100 epochs).
    Measured here at width 32, batch 16, 30 epochs, learning rate 0.002: image AUROC of bottle 99.3.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.conv_autoencoder import CODE_GRID, decoder, encoder
from iadbe.layers.features.anomaly_map import gaussian_blur
from iadbe.layers.features.region import image_score, masked
from iadbe.layers.features.views import resized_images
from iadbe.layers.statistics.divergence import kl_divergence
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

STRIDES = (2, 4, 8)  # of the layers that are predicted
MULTIPLES = (1, 2, 2, 4, 4, 4)  # channels of the encoder's layers, in units of width; the last one has NARROW
NARROW = 32


class FAVAE(Detector):
    """Feature-augmented variational autoencoder."""

    paper = "Dehaene and Eline, Anomaly localization by modeling perceptual features, 2020, arXiv 2008.05369"
    year = 2020
    kind = "reconstruction"
    can = frozenset({"localise", "continue"})
    paper_view = {"resize": 128}
    paper_params = {"backbone": "vgg16.tv_in1k", "layers": (1, 2, 3)}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (0, 1, 2),
        weights: str = "auto",
        size: int = 128,
        latent: int = 100,
        width: int = 128,
        beta: float = 1.0,
        epochs: int = 100,
        learning_rate: float = 5e-3,
        batch: int = 64,
        sigma: float = 4.0,
    ) -> None:
        """Choose features, network and training.

        Args:
            backbone: any timm model
            layers: layers of strides 2, 4 and 8, in this order, of which some may be left out
            weights: a file, auto or none
            size: side in pixels to which the autoencoder's images are resized: 64, 128, 256 or 512
            latent: dimension of the code
            width: channels of the encoder's first and the decoder's last layer; others have up to four times as many
            beta: weight of the Kullback-Leibler divergence
            epochs: passes over the training images
            learning_rate: of Adam with weight decay 1e-5
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(latent, width, epochs, batch) < 1 or beta < 0 or learning_rate <= 0:
            raise BadConfig("latent, width, epochs, batch and learning_rate must be above 0, beta not negative.")
        self.backbone = Backbone(backbone, layers, weights)
        strides = self.backbone.strides
        if not set(strides) <= set(STRIDES) or list(strides) != sorted(set(strides)):
            raise BadConfig(
                f"layers must be some of strides 2, 4 and 8, in this order; {list(layers)} of {backbone} have the "
                f"strides {list(strides)}."
            )
        if size < CODE_GRID * max(strides):
            raise BadConfig(f"stride {max(strides)} needs a size of {CODE_GRID * max(strides)} or more, not {size}.")
        self.size, self.latent, self.width, self.beta = size, latent, width, beta
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        self.update(train, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate, weight_decay=1e-5)
        source, cached = generator(rng, train.device), FeatureCache(self.backbone)
        self.network.train()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, source)):
            image = resized_images(batch.image, self.size)
            mean, log_variance = self.network.code(image)
            noise = torch.randn(mean.shape, generator=source, device=mean.device)
            errors = self._errors(image, cached(batch), mean + noise * (log_variance / 2).exp())
            loss = (
                sum(masked(error, batch.region).sum() for error in errors)
                + self.beta * kl_divergence(mean, log_variance).sum()
            )
            step(optimizer, loss / len(batch))
        self.network.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.network.eval()
        image = resized_images(batch.image, self.size)
        height, width = batch.image.shape[-2:]
        errors = self._errors(image, self.backbone(batch), self.network.code(image)[0])
        resized = [F.interpolate(e[:, None], (height, width), mode="bilinear", align_corners=False) for e in errors]
        map_ = gaussian_blur(torch.stack(resized).sum(0), self.sigma, region=batch.region)[:, 0]
        return Prediction(image_score(map_, batch.region), map_)

    def _initialise(self) -> None:
        """Make an untrained network; torch's generator draws its weights."""
        self.network = _Network(self.size, self.latent, self.width, self.backbone.strides, self.backbone.channels)

    def _errors(self, image: Tensor, features: list[Tensor], code: Tensor) -> list[Tensor]:
        """Return squared errors, summed over channels, of the image (B, size, size) and of each layer (B, h, w).

        Args:
            image: (B, 3, size, size)
            features: of each layer, (B, C, h, w)
            code: (B, latent)
        """
        reconstruction, predicted = self.network(code)
        errors = [(image - reconstruction).square().sum(1)]
        for target, found in zip(features, predicted, strict=True):
            aligned = target
            if target.shape != found.shape:
                aligned = F.interpolate(target, found.shape[-2:], mode="bilinear", align_corners=False)
            errors.append((aligned - found).square().sum(1))
        return errors


class _Network(nn.Module):
    """The autoencoder, and the adapters that predict features."""

    def __init__(self, size: int, latent: int, width: int, strides: tuple[int, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        widths = (*(width * m for m in MULTIPLES), NARROW)
        self.encoder = encoder(size, 2 * latent, widths, norm=True)
        self.decoder = decoder(size, latent, widths, norm=True)
        layers = [i for i, module in enumerate(self.decoder) if isinstance(module, nn.ConvTranspose2d)]
        doubling = [i for i in layers if self.decoder[i].stride == (2, 2)]
        grids = [
            max(i for i in layers if i < doubling[0]),
            *doubling,
        ]  # of the first grid the last layer
        self.taps = [grids[-1 - int(math.log2(stride))] for stride in strides]  # the last one makes the image
        self.adapters = nn.ModuleList()
        for tap, after in zip(self.taps, channels, strict=True):
            before = int(self.decoder[tap].out_channels)  # type: ignore[arg-type]
            self.adapters.append(nn.Sequential(nn.Conv2d(before, before, 1), nn.ReLU(), nn.Conv2d(before, after, 1)))
        self.to(memory_format=torch.channels_last)

    def code(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the code, each (B, latent), of images (B, 3, size, size)."""
        mean, log_variance = self.encoder(image).flatten(1).chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def forward(self, code: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the images (B, 3, size, size) in [0, 1] and the features of codes (B, latent)."""
        x, tapped = code[:, :, None, None], {}
        for number, layer in enumerate(self.decoder):
            x = layer(x)
            if number in self.taps:
                tapped[number] = x
        return x.sigmoid(), [adapt(tapped[tap]) for adapt, tap in zip(self.adapters, self.taps, strict=True)]
