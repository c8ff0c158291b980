"""Adversarially trained encoder, decoder and second encoder; the score is the distance of the two codes.

Paper: Akcay et al., "GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training", ACCV 2018, 1805.06725.
    The generator is an encoder G_E, a decoder G_D and an encoder E of the same shape, that of a DCGAN. It minimises
    the L1 distance of image and reconstruction (contextual loss, weight 50), the squared distance of the codes
    z = G_E(x) and ẑ = E(G(x)) (encoder loss, weight 1) and the squared distance of the discriminator's features of
    image and reconstruction (adversarial loss, weight 1). The discriminator learns to tell them apart by binary
    cross-entropy, and starts again with new weights if its loss falls below 1e-5. Score: ‖z - ẑ‖₁ (equation 6). The
    losses are means over the batch and over the elements, as in the authors' code.
Differs:
    * The authors' code scores with the mean square of z - ẑ, scales the scores to [0, 1] over the test set, and scores
      with batch statistics, as it does not leave the training mode. Here, the running statistics count.
    * The map is the distance |x - G(x)| of image and reconstruction, whose mean the contextual loss minimises; the
      paper has no map. It has no influence on the score.
    * An incomplete last batch is used; the authors drop it.
Numbers: MVTec AD: image AUROC about 76 in later papers' tables. In anomalib (256, 100 epochs) 42.1, below chance.
    Measured here with batches of 32: image AUROC of bottle 94.3 (size 32, width 32, 1500 steps) and 73.2 (size 64,
    width 16, 400 steps); of transistor 74.4, pixel AUROC 96.7 (size 64, width 32, 600 steps).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.dcgan import initialise, strided_encoder, transposed_decoder
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import within
from iadbe.layers.features.views import resized_images
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

TOO_LOW = 1e-5  # loss below which the discriminator starts again


class GANomaly(Detector):
    """Encoder, decoder and second encoder, trained against a discriminator."""

    paper = "Akcay et al., GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training, ACCV 2018, 1805.06725"
    year = 2018
    kind = "reconstruction"
    can = frozenset({"localise", "continue"})
    whole_image = (
        "codes are of whole images, and their distance is the score; reconstructions are learnt from what counts"
    )
    paper_view = {"resize": 64}
    paper_params = {}

    def __init__(
        self,
        size: int = 64,
        latent: int = 100,
        width: int = 64,
        adversarial: float = 1.0,
        contextual: float = 50.0,
        encoder: float = 1.0,
        steps: int = 10_000,
        learning_rate: float = 2e-4,
        batch: int = 64,
        sigma: float = 4.0,
    ) -> None:
        """Set up untrained networks.

        Args:
            size: side in pixels to which images are resized: 16, 32, 64, 128 or 256
            latent: dimension of the codes z and ẑ
            width: channels of the layers next to the image
            adversarial: weight of the adversarial loss
            contextual: weight of the contextual loss
            encoder: weight of the encoder loss
            steps: training steps of both adversaries (the paper's 15 epochs of CIFAR-10)
            learning_rate: of Adam with β = (0.5, 0.999)
            batch: images per step
            sigma: standard deviation of the Gaussian blur of the map, in pixels
        """
        super().__init__()
        if min(latent, width, steps, batch) < 1 or learning_rate <= 0:
            raise BadConfig("latent, width, steps, batch and learning_rate must all be above 0.")
        if min(adversarial, contextual, encoder) < 0:
            raise BadConfig("the weights of the losses must not be negative.")
        self.size, self.latent, self.width = size, latent, width
        self.weight_of = {"adversarial": adversarial, "contextual": contextual, "encoder": encoder}
        self.steps, self.learning_rate, self.batch, self.sigma = steps, learning_rate, batch, sigma
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        self.update(train, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        of_generator, of_discriminator = (
            torch.optim.Adam(network.parameters(), self.learning_rate, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        source = generator(rng, train.device)
        self.train()
        state = (of_generator, of_discriminator, source)
        for batch in loop(train, steps=self.steps, batch=self.batch, rng=rng, state=state):
            image = self._scaled(batch.image)
            logit, features = self.discriminator(image)
            fake, code, second = self.generator(image)
            self.discriminator.requires_grad_(False)
            step(of_generator, self._generator_loss(image, fake, features.detach(), code, second, batch.region))
            self.discriminator.requires_grad_(True)
            loss = discriminator_loss(logit, self.discriminator(fake.detach())[0])
            if step(of_discriminator, loss, shown=False) < TOO_LOW:
                initialise(self.discriminator, source)
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        image = self._scaled(batch.image)
        fake, code, second = self.generator(image)
        map_ = upsampled((image - fake).abs().mean(1), batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction((code - second).abs().sum(1), map_)

    def _initialise(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        self.generator = _Generator(self.size, self.width, self.latent)
        self.discriminator = _Discriminator(self.size, self.width)
        initialise(self.generator)
        initialise(self.discriminator)

    def _scaled(self, image: Tensor) -> Tensor:
        """Return images (B, 3, size, size) in [-1, 1]."""
        return resized_images(image, self.size) * 2 - 1

    def _generator_loss(
        self, image: Tensor, fake: Tensor, features: Tensor, code: Tensor, second: Tensor, region: Tensor | None
    ) -> Tensor:
        """Return the weighted sum of the three losses: ().

        Args:
            image: (B, 3, size, size)
            fake: their reconstructions
            features: the discriminator's features of the images
            code: z, (B, latent)
            second: ẑ, (B, latent)
            region: which pixels are to be reconstructed, (B, H, W) bool; None: all
        """
        weight = self.weight_of
        adversarial = F.mse_loss(self.discriminator(fake)[1], features)
        encoder = F.mse_loss(second, code)
        return (
            weight["adversarial"] * adversarial
            + weight["contextual"] * F.l1_loss(within(fake, region), within(image, region))
            + weight["encoder"] * encoder
        )


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits (B,) of images, labelled 1, and of reconstructions, labelled 0."""
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


class _Generator(nn.Module):
    """Encoder G_E, decoder G_D and second encoder E."""

    def __init__(self, size: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = strided_encoder(size, width, latent)
        self.decoder = transposed_decoder(size, width, latent)
        self.second = strided_encoder(size, width, latent)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, code z (B, latent) and code ẑ of the reconstruction."""
        code = self.encoder(image)
        fake = self.decoder(code)
        return fake, code.flatten(1), self.second(fake).flatten(1)


class _Discriminator(nn.Module):
    """An encoder with one output."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        *features, last = strided_encoder(size, width, 1)
        self.features, self.last = nn.Sequential(*features), last

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit (B,) of being real, and the features before the last layer."""
        features = self.features(image)
        return self.last(features).flatten(), features
