"""A generative adversarial network of normal images; the score is the distance of an image from what it can generate.

Paper: Schlegl et al., "Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker Discovery",
    IPMI 2017, 1703.05921 (AnoGAN). The networks are those of a DCGAN. At prediction, 500 steps of gradient descent
    search the code z whose image G(z) is nearest: the loss, which is also the score, is
    (1 - λ) Σ|x - G(z)| + λ Σ|f(x) - f(G(z))| with λ = 0.1 and f the discriminator's last features. The map is
    |x - G(z)|.
    With ``encoder``: Schlegl et al., "f-AnoGAN", Medical Image Analysis 2019. The networks are those of a WGAN-GP
    (Gulrajani et al., NIPS 2017, 1704.00028: residual, gradient penalty 10, five steps of the critic for one of the
    generator). Then an encoder E, with a tanh at its end, is trained on ‖x - G(E(x))‖² + κ ‖f(x) - f(G(E(x)))‖²,
    means over elements (izi_f, κ = 1), which is also the score. The map is |x - G(E(x))|.
Differs:
    * Whole images are resized to ``size``; the papers train on patches of 64 x 64.
    * The search starts at one code, drawn when the detector is fitted, and takes Adam's steps with a rate of 0.02
      (Bergmann et al., "MVTec AD", CVPR 2019, take 0.02, and 300 steps).
    * The papers count passes over about a million patches; here, ``steps`` counts batches: of the GAN (WGAN: of its
      critic), and again of the encoder, where the authors take 50 000.
    * ``latent`` is 100 for both; f-AnoGAN has 128.
    * The map is smoothed.
    * With a time budget, the WGAN gets at most half of it.
Numbers: MVTec AD: AnoGAN: pixel AUROC 74, AUPRO 44.3 (Bergmann et al.); f-AnoGAN: image AUROC about 65
    in later papers' tables. Measured here with the search at size 32, width 16, 1500 steps of 32, 150 search steps:
    image AUROC of bottle 86.0; with the encoder at width 8, 250 steps of 32, learning rate 0.004: 75.1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.dcgan import initialise, strided_encoder, transposed_decoder
from iadbe.layers.blocks.preactivation import Norm, PreactivationBlock, ResampledConvolution
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import masked
from iadbe.layers.features.views import resized_images
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

PENALTY = 10.0  # weight of the gradient penalty
CRITIC_STEPS = 5  # for one step of the generator
WGAN_TIME = 0.5  # share of a time budget for the WGAN, at most
GRID = 4  # side of the smallest feature map


class AnoGAN(Detector):
    """Search of a GAN's codes, or with an encoder f-AnoGAN."""

    paper = "Schlegl et al., Unsupervised Anomaly Detection with GANs, IPMI 2017, 1703.05921; f-AnoGAN, MedIA 2019"
    year = 2017
    kind = "reconstruction"
    can = frozenset({"localise"})
    whole_image = "the GAN is of whole images: it makes codes into images, of which no part can be left out"
    not_exportable_for = {
        "encoder": {False: "it searches each image's code along the gradient of a loss. encoder=true needs no search"}
    }
    paper_view = {"resize": 64}
    paper_params = {}

    def __init__(
        self,
        encoder: bool = False,
        size: int = 64,
        latent: int = 100,
        width: int = 64,
        steps: int = 50_000,
        learning_rate: float = 2e-4,
        batch: int = 64,
        search_steps: int = 500,
        search_rate: float = 0.02,
        balance: float = 0.1,
        kappa: float = 1.0,
        sigma: float = 4.0,
    ) -> None:
        """Set up untrained networks.

        Args:
            encoder: train an encoder instead of searching (f-AnoGAN)
            size: side in pixels to which images are resized: 16, 32, 64, 128 or 256
            latent: dimension of the code z
            width: channels of the layers next to the image
            steps: training steps of the GAN, and again of the encoder
            learning_rate: of Adam; a WGAN's networks take half of it, the encoder a quarter (the papers' values)
            batch: images per step
            search_steps: steps of the search for one image
            search_rate: learning rate of the search
            balance: weight λ of the features in the search and its score
            kappa: weight κ of the features for the encoder and its score
            sigma: standard deviation of the Gaussian blur of the map, in pixels
        """
        super().__init__()
        if min(latent, width, steps, batch, search_steps) < 1 or min(learning_rate, search_rate) <= 0:
            raise BadConfig(
                "latent, width, steps, batch, learning_rate, search_steps and search_rate must all be above 0."
            )
        if not 0 <= balance <= 1 or kappa < 0:
            raise BadConfig(f"balance is from 0 to 1, not {balance:g}, and kappa not negative, not {kappa:g}.")
        self.with_encoder, self.size, self.latent, self.width = encoder, size, latent, width
        self.steps, self.learning_rate, self.batch = steps, learning_rate, batch
        self.search_steps, self.search_rate, self.balance = search_steps, search_rate, balance
        self.kappa, self.sigma = kappa, sigma
        self.start: Tensor
        self.register_buffer("start", torch.zeros(latent))
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
            self.start = torch.rand(self.latent) * 2 - 1
        self.to(train.device)
        if not self.with_encoder:
            self._train_gan(train, rng)
            return
        with progress.budget_share(WGAN_TIME):
            self._train_wgan(train, rng)
        self._train_encoder(train, rng)

    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        with torch.no_grad():
            image = self._scaled(batch.image)
            code = self.encoder(image) if self.with_encoder else self._found(image, batch.region)
            fake = self.generator(code)
            loss = self._encoder_loss if self.with_encoder else self._search_loss
            score = loss(image, fake, batch.region)
            map_ = upsampled((image - fake).abs().mean(1), batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(score, map_)

    def _initialise(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        if self.with_encoder:
            self.generator = _residual_generator(self.size, self.width, self.latent)
            self.discriminator = _Discriminator(*_residual_encoder(self.size, self.width, 1, "layer"))
            self.encoder = nn.Sequential(*_residual_encoder(self.size, self.width, self.latent, "batch"), nn.Tanh())
            return
        decoder = transposed_decoder(self.size, self.width, self.latent)
        self.generator = nn.Sequential(nn.Unflatten(1, (self.latent, 1, 1)), decoder)
        *features, last = strided_encoder(self.size, self.width, 1)
        self.discriminator = _Discriminator(*features, nn.Sequential(last, nn.Flatten()))
        initialise(self.generator)
        initialise(self.discriminator)

    def _scaled(self, image: Tensor) -> Tensor:
        """Return images (B, 3, size, size) in [-1, 1]."""
        return resized_images(image, self.size) * 2 - 1

    def _train_gan(self, train: Images, rng: np.random.Generator) -> None:
        """Train generator and discriminator in turn on the binary cross-entropy; codes are uniform in [-1, 1]."""
        of_generator, of_discriminator = (
            torch.optim.Adam(network.parameters(), self.learning_rate, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        source = generator(rng, train.device)
        self.train()
        state = (of_generator, of_discriminator, source)
        for batch in loop(train, steps=self.steps, batch=self.batch, rng=rng, state=state):
            image = self._scaled(batch.image)
            code = torch.rand(len(image), self.latent, generator=source, device=image.device) * 2 - 1
            fake = self.generator(code)
            real_logit, fake_logit = self.discriminator(image)[0], self.discriminator(fake.detach())[0]
            step(of_discriminator, F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean(), shown=False)
            self.discriminator.requires_grad_(False)
            step(of_generator, F.softplus(-self.discriminator(fake)[0]).mean())
            self.discriminator.requires_grad_(True)
        self.eval()

    def _train_wgan(self, train: Images, rng: np.random.Generator) -> None:
        """Train the critic at every step and the generator at every fifth; codes are normal."""
        of_generator, of_critic = (
            torch.optim.Adam(network.parameters(), self.learning_rate / 2, betas=(0.0, 0.9))
            for network in (self.generator, self.discriminator)
        )
        source, count = generator(rng, train.device), _Counter()
        self.train()
        state = (of_generator, of_critic, source, count)
        for batch in loop(train, steps=self.steps, batch=self.batch, rng=rng, state=state):
            image = self._scaled(batch.image)
            code = torch.randn(len(image), self.latent, generator=source, device=image.device)
            with torch.no_grad():
                fake = self.generator(code)
            step(of_critic, self._critic_loss(image, fake, source))
            count.value += 1
            if count.value % CRITIC_STEPS == 0:
                code = torch.randn(len(image), self.latent, generator=source, device=image.device)
                self.discriminator.requires_grad_(False)
                step(of_generator, -self.discriminator(self.generator(code))[0].mean(), shown=False)
                self.discriminator.requires_grad_(True)
        self.eval()

    def _train_encoder(self, train: Images, rng: np.random.Generator) -> None:
        """Train the encoder; generator and critic stay as they are."""
        optimizer = torch.optim.RMSprop(self.encoder.parameters(), self.learning_rate / 4, alpha=0.9, eps=1e-5)
        frozen = (self.generator, self.discriminator)
        for network in frozen:
            network.eval().requires_grad_(False)
        self.encoder.train()
        for batch in loop(train, steps=self.steps, batch=self.batch, rng=rng, state=(optimizer,)):
            image = self._scaled(batch.image)
            step(optimizer, self._encoder_loss(image, self.generator(self.encoder(image)), batch.region).mean())
        for network in frozen:
            network.requires_grad_(True)
        self.eval()

    def _critic_loss(self, image: Tensor, fake: Tensor, source: torch.Generator) -> Tensor:
        """Return E[D(G(z))] - E[D(x)] and the gradient penalty between images and generated ones: ()."""
        share = torch.rand(len(image), 1, 1, 1, generator=source, device=image.device)
        between = (image + share * (fake - image)).requires_grad_()
        (slope,) = torch.autograd.grad(self.discriminator(between)[0].sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return self.discriminator(fake)[0].mean() - self.discriminator(image)[0].mean() + PENALTY * penalty

    def _search_loss(self, image: Tensor, fake: Tensor, region: Tensor | None = None) -> Tensor:
        """Return AnoGAN's loss and score of each image: (B,)."""
        residual = masked((image - fake).abs(), region).flatten(1).sum(1)
        difference = self.discriminator(image)[1] - self.discriminator(fake)[1]
        features = _of_grid(difference.abs(), region).flatten(1).sum(1)
        return (1 - self.balance) * residual + self.balance * features

    def _encoder_loss(self, image: Tensor, fake: Tensor, region: Tensor | None = None) -> Tensor:
        """Return f-AnoGAN's loss and score of each image: (B,)."""
        residual = masked((image - fake).square(), region).flatten(1).mean(1)
        difference = self.discriminator(image)[1] - self.discriminator(fake)[1]
        features = _of_grid(difference.square(), region).flatten(1).mean(1)
        return residual + self.kappa * features

    def _found(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the codes (B, latent) that the search finds for images; none influences another.

        Images are searched one at a time, because rounding depends on the size of a batch, and hundreds of steps
        amplify it.
        """
        regions = [None] * len(image) if region is None else region.split(1)
        return torch.cat([self._search(one, counts) for one, counts in zip(image.split(1), regions, strict=True)])

    def _search(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        code = self.start.repeat(len(image), 1)
        optimizer = torch.optim.Adam([code], self.search_rate)
        for _ in range(self.search_steps):
            with torch.enable_grad():
                code.requires_grad_()
                loss = self._search_loss(image, self.generator(code), region).sum()
                (code.grad,) = torch.autograd.grad(loss, code)
            optimizer.step()
        return code.detach()


class _Discriminator(nn.Module):
    """Layers, of which the last one gives a logit per image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.features, self.last = nn.Sequential(*layers[:-1]), layers[-1]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit (B,) of each image and the features before the last layer."""
        features = self.features(image)
        return self.last(features).flatten(), features


def _of_grid(values: Tensor, region: Tensor | None) -> Tensor:
    """Return features (B, C, h, w), or flattened ones of the smallest grid, with zeros where positions do not count."""
    return masked(values if values.dim() == 4 else values.unflatten(1, (-1, GRID, GRID)), region)


class _Counter:
    """Counts; an interrupted loop continues with its value."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = int(state_dict["value"])


def _channels(size: int, width: int) -> list[int]:
    """Return the channels of a residual network at each grid, from the image's to 4 x 4."""
    if size not in (16, 32, 64, 128, 256):
        raise BadConfig(f"size is 16, 32, 64, 128 or 256, not {size}.")
    return [width * min(8, 2**i) for i in range((size // GRID).bit_length())]


def _residual_encoder(size: int, width: int, outputs: int, norm: Norm) -> list[nn.Module]:
    """Return layers from images to (B, outputs)."""
    channels = _channels(size, width)
    layers: list[nn.Module] = [ResampledConvolution(3, width, 3, gain=1)]
    for before, after in pairwise(channels):
        layers.append(PreactivationBlock(before, after, "halve", norm))
    return [*layers, nn.Flatten(), nn.Linear(channels[-1] * GRID * GRID, outputs)]


def _residual_generator(size: int, width: int, latent: int) -> nn.Sequential:
    """Return a network from codes (B, latent) to images in [-1, 1]."""
    channels = _channels(size, width)[::-1]
    layers = [nn.Linear(latent, channels[0] * GRID * GRID), nn.Unflatten(1, (channels[0], GRID, GRID))]
    for before, after in pairwise(channels):
        layers.append(PreactivationBlock(before, after, "double"))
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), ResampledConvolution(width, 3, 3), nn.Tanh())
