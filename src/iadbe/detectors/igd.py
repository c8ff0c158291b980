"""A Gaussian descriptor of codes, trained with a decoder and a critic of interpolated codes.

Paper: Chen et al., "Deep One-Class Classification via Interpolated Gaussian Descriptor", AAAI 2022, 2101.10043, its
    global model. A linear layer maps the pooled features of a frozen network to a code z. The loss is that of the
    reconstruction, 0.85 (1 - MS-SSIM) + 0.15 L1, plus the Gaussian anomaly classifier 1 - exp(-‖z - c‖² / σ), plus 0.1
    of the critic's squared output for images decoded from interpolated codes α z + (1 - α) z', α from 0 to 0.5. The
    critic learns to predict α from these images, and 0 from x̂ + 0.2 (x - x̂). Centre c and scale σ are the mean code
    and the mean squared distance, at least 1; they are estimated again every ten epochs; components of c are at least
    0.1 from 0. Adam (0, 0.9), rate 1e-4 with polynomial decay, 256 epochs of batches of 16. Score: half of the
    reconstruction loss plus half of the classifier.
Differs:
    * The map is the authors', of the global model: at each pixel 0.85 of the weighted 1 - SSIM of all scales plus
      0.15 of the absolute difference. The authors average it with that of a second model of patches of 32 x 32 pixels,
      which is not here, and neither in IM-IAD's benchmark.
    * Images are in [0, 1], for which SSIM's constants are; the authors normalise them by ImageNet's statistics.
    * Images are not mirrored in training, so that frozen features are computed once.
    * The decoder's batch norms are trained; the authors' code estimates c in evaluation mode and never leaves it.
    * The critic learns from the images of the same step, which the authors decode again after the decoder's step. It
      predicts the α of its own image; in the authors' code each output is compared with every α of the batch.
    * Below 256 pixels, MS-SSIM has four scales and smaller windows, as in the authors' model of patches.
Numbers: MVTec AD: image AUROC 93.4, pixel AUROC 93.1 (with both models); IM-IAD: image AUROC 80.5 (5 % noise).
    Measured here at size 32, width 8, 30 epochs, learning rate 0.002 (view of 128): image AUROC of bottle 98.9.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.preactivation import PreactivationBlock, ResampledConvolution
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.similarity import FIVE_SCALES, FOUR_SCALES, ms_ssim, ssim_pyramid
from iadbe.layers.features.views import resized_images
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

SSIM_SHARE = 0.85  # of the reconstruction loss
INTERPOLATION = 0.1  # weight of the critic's output
MIXED = 0.2  # share of the image in what the critic takes for real
NEAREST = 0.1  # least distance of the components of c from 0
REFRESH = 10  # epochs between estimates of c and σ
GRID = 4  # side of the smallest feature map


class IGD(Detector):
    """Interpolated Gaussian descriptor."""

    paper = "Chen et al., Deep One-Class Classification via Interpolated Gaussian Descriptor, AAAI 2022, 2101.10043"
    year = 2022
    kind = "reconstruction"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet18.tv_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (4,),
        weights: str = "auto",
        size: int = 256,
        latent: int = 128,
        width: int = 64,
        epochs: int = 256,
        learning_rate: float = 1e-4,
        batch: int = 16,
        sigma: float = 4.0,
    ) -> None:
        """Choose features, networks and training.

        Args:
            backbone: any timm model
            layers: layers whose features are averaged over the image and concatenated
            weights: a file, auto or none
            size: side in pixels of reconstructions: 32, 64, 128 or 256
            latent: dimension of the code z
            width: channels of decoder and critic next to the image; other layers have up to eight times as many
            epochs: passes over the training images
            learning_rate: of Adam, at the first step
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if size not in (32, 64, 128, 256):
            raise BadConfig(f"size is 32, 64, 128 or 256, not {size}.")
        if min(latent, width, epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig("latent, width, epochs, batch and learning_rate must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        self.size, self.latent, self.width = size, latent, width
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.exponents = FIVE_SCALES if size >= 256 else FOUR_SCALES
        coarsest = size // 2 ** (len(self.exponents) - 1)
        self.window = min(11, coarsest - 1 + coarsest % 2)  # odd, and smaller than the coarsest image
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(()))
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        source, cached = generator(rng, train.device), FeatureCache(self._pooled)
        features = torch.cat([cached(batch)[0] for batch in train.batches(self.batch)])
        self._estimate_centre(features)
        self._estimate_scale(features)
        parameters = [*self.code.parameters(), *self.decoder.parameters()]
        of_decoder = torch.optim.Adam(parameters, self.learning_rate, betas=(0.0, 0.9), weight_decay=1e-6)
        of_critic = torch.optim.Adam(self.critic.parameters(), self.learning_rate, betas=(0.0, 0.9))
        per_epoch = -(-len(train) // self.batch)
        rates = [
            torch.optim.lr_scheduler.PolynomialLR(o, self.epochs * per_epoch, 0.9) for o in (of_decoder, of_critic)
        ]
        self.train()
        state = (of_decoder, of_critic, *rates, source)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=state):
            image, code = resized_images(batch.image, self.size), self.code(cached(batch)[0])
            share = torch.rand(len(code), 1, generator=source, device=code.device) / 2  # α
            fake = self.decoder(code)
            between = self.decoder(share * code + (1 - share) * code.flip(0))
            self.critic.requires_grad_(False)
            loss = (self._reconstruction_loss(image, fake)[0] + self._distance(code)).mean()
            step(of_decoder, loss + INTERPOLATION * self.critic(between).square().mean())
            self.critic.requires_grad_(True)
            step(of_critic, self._critic_loss(image, fake.detach(), between.detach(), share), shown=False)
            for rate in rates:
                rate.step()
            if rates[0].last_epoch % (REFRESH * per_epoch) == 0:
                self._estimate_scale(features)
                self._estimate_centre(features)
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        image, code = resized_images(batch.image, self.size), self.code(self._pooled(batch)[0])
        loss, map_ = self._reconstruction_loss(image, self.decoder(code))
        return Prediction((loss + self._distance(code)) / 2, upsampled(map_, batch.image.shape[-2:], self.sigma))

    def _initialise(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        channels = [self.width * min(8, 2**i) for i in range((self.size // (4 * GRID)).bit_length())]
        self.code = nn.Linear(sum(self.backbone.channels), self.latent)
        self.decoder = _decoder(self.latent, channels[::-1])
        self.critic = _critic(channels)

    def _pooled(self, batch: Batch) -> list[Tensor]:
        """Return the mean features of images, in a list of one: (B, D)."""
        return [torch.cat([f.mean((2, 3)) for f in self.backbone(batch)], 1)]

    @torch.no_grad()
    def _estimate_centre(self, features: Tensor) -> None:
        """Set c to the mean code, with no component near 0, which zero weights would match."""
        centre = self.code(features).mean(0)
        near = centre.abs() < NEAREST
        self.centre = torch.where(near, NEAREST * centre.sign(), centre)

    @torch.no_grad()
    def _estimate_scale(self, features: Tensor) -> None:
        """Set σ to the mean over batches of the mean squared distance from c, each at least 1."""
        squared = (self.code(features) - self.centre).square().sum(1)
        self.scale = torch.stack([part.mean().clamp(min=1) for part in squared.split(self.batch)]).mean()

    def _distance(self, code: Tensor) -> Tensor:
        """Return the Gaussian anomaly classifier 1 - exp(-‖z - c‖² / σ) of codes (B, latent): (B,)."""
        return 1 - (-(code - self.centre).square().sum(1) / self.scale).exp()

    def _reconstruction_loss(self, image: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each image (B,) and of each pixel (B, size, size)."""
        pyramid = ssim_pyramid(image, fake, len(self.exponents), self.window)
        difference = (image - fake).abs()
        loss = SSIM_SHARE * (1 - ms_ssim(pyramid, self.exponents)) + (1 - SSIM_SHARE) * difference.mean((1, 2, 3))
        map_ = (1 - SSIM_SHARE) * difference
        for (similarity, _), exponent in zip(pyramid, self.exponents, strict=True):
            map_ = map_ + SSIM_SHARE * exponent * (1 - F.interpolate(similarity.relu(), image.shape[-2:]))
        return loss, map_.mean(1)

    def _critic_loss(self, image: Tensor, fake: Tensor, between: Tensor, share: Tensor) -> Tensor:
        """Return the critic's loss (): images ``between`` should give their α, ``share`` (B, 1), real ones 0."""
        of_real = self.critic(fake + MIXED * (image - fake)).square().mean()
        return (self.critic(between) - share).square().mean() + of_real


def _decoder(latent: int, channels: list[int]) -> nn.Sequential:
    """Return a network from codes (B, latent) to images, with these channels from 8 x 8 to half of the image's size."""
    layers = [nn.Linear(latent, channels[0] * GRID * GRID), nn.Unflatten(1, (channels[0], GRID, GRID))]
    layers.append(ResampledConvolution(channels[0], channels[0], 3, "double"))
    layers += [PreactivationBlock(before, after, "double") for before, after in pairwise(channels)]
    last = ResampledConvolution(channels[-1], 3, 5, "double")
    return nn.Sequential(*layers, nn.BatchNorm2d(channels[-1]), nn.ReLU(), last)


def _critic(channels: list[int]) -> nn.Sequential:
    """Return a network from images to (B, 1), with these channels from half of the image's size to 8 x 8."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 5, 2, 2)]
    layers += [PreactivationBlock(before, after, "halve", "layer") for before, after in pairwise(channels)]
    layers += [nn.Conv2d(channels[-1], channels[-1], 3, 2, 1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels[-1] * GRID * GRID, 1))
