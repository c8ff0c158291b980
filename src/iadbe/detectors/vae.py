"""A variational autoencoder of normal images; the score is the expected squared reconstruction error.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, 1312.6114: the encoder gives mean and variance
    of a Gaussian q(z|x), the decoder the mean of a Gaussian p(x|z); the loss is the negative evidence lower bound,
    -E_q [log p(x|z)] + β KL(q(z|x) || N(0, I)), with one sample of z per image and step. β: Higgins et al., ICLR 2017.
    Score: An and Cho, "Variational Autoencoder based Anomaly Detection using Reconstruction Probability", SNU 2015,
    algorithm 4: the mean of -log p(x|z) over L samples of q(z|x). The network is Bergmann et al.'s, VISAPP 2019,
    1807.02011, as in Dehaene et al., "Iterative energy-based projection on a normal data manifold", ICLR 2020.
Differs:
    * p(x|z) has a fixed variance of 1/2 for all pixels, so that -log p(x|z) is the squared error but for a constant. An
      and Cho's decoder predicts a variance, which is unstable on images.
    * The logarithm of the variance of q(z|x) is limited to ±10.
    * The noise of the L samples is drawn once, when fitted, and is the same for every image.
    * The image score is the maximum of the map, as in ``autoencoder``; An and Cho take the sum over all pixels.
Numbers: MVTec AD: pixel AUROC 86.1 (VE-VAE, Liu et al. 2020) and 89.3 (with Dehaene et al.'s projection). Measured
    here at size 128, 60 epochs, learning rate 0.001: image AUROC of bottle 89.0, of transistor 69.8.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.conv_autoencoder import decoder, encoder
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import image_score, masked
from iadbe.layers.features.views import resized_images
from iadbe.layers.statistics.divergence import kl_divergence
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction


class VAE(Detector):
    """Variational autoencoder with a Gaussian decoder."""

    paper = "Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014, 1312.6114; An and Cho, SNU 2015"
    year = 2015
    kind = "reconstruction"
    can = frozenset({"localise", "continue"})
    paper_view = {"resize": 256}
    paper_params = {}

    def __init__(
        self,
        size: int = 256,
        latent: int = 100,
        beta: float = 1.0,
        samples: int = 10,
        epochs: int = 200,
        learning_rate: float = 2e-4,
        batch: int = 16,
        sigma: float = 4.0,
    ) -> None:
        """Set up an untrained network.

        Args:
            size: side in pixels to which images are resized: 32, 64, 128, 256 or 512
            latent: dimension of the code z
            beta: weight of the Kullback-Leibler divergence; the squared error is summed over pixels and channels
            samples: codes per image over which the score is averaged; 0: only the mean of q(z|x)
            epochs: number of training epochs
            learning_rate: of Adam with weight decay 1e-5
            batch: images per step
            sigma: standard deviation of the Gaussian blur of the map, in pixels
        """
        super().__init__()
        if min(latent, epochs, batch) < 1 or min(samples, beta) < 0 or learning_rate <= 0:
            raise BadConfig(
                "latent, epochs, batch and learning_rate must all be above 0, beta and samples must not be negative."
            )
        self.size, self.latent, self.beta, self.samples = size, latent, beta, samples
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.noise: Tensor
        self.register_buffer("noise", torch.zeros(samples, latent))
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        with seeded(rng):
            self._initialise()
            self.noise = torch.randn(self.samples, self.latent)
        self.to(train.device)
        self.update(train, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        optimizer = torch.optim.Adam(parameters, self.learning_rate, weight_decay=1e-5)
        source = generator(rng, train.device)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, source)):
            image = resized_images(batch.image, self.size)
            mean, log_variance = self._code(image)
            noise = torch.randn(mean.shape, generator=source, device=mean.device)
            square = (image - self._decoded(mean + noise * (log_variance / 2).exp())).square()
            error = masked(square, batch.region).sum((1, 2, 3))
            step(optimizer, (error + self.beta * kl_divergence(mean, log_variance)).mean())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        image = resized_images(batch.image, self.size)
        mean, log_variance = self._code(image)
        noise = self.noise if self.samples else torch.zeros(1, self.latent, device=image.device)
        errors = [(image - self._decoded(mean + e * (log_variance / 2).exp())).square().mean(1) for e in noise]
        map_ = upsampled(torch.stack(errors).mean(0), batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    def _initialise(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        self.encoder = encoder(self.size, 2 * self.latent).to(memory_format=torch.channels_last)
        self.decoder = decoder(self.size, self.latent).to(memory_format=torch.channels_last)

    def _code(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of q(z|x), each (B, latent), of images (B, 3, size, size)."""
        mean, log_variance = self.encoder(image).flatten(1).chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)  # beyond, one unlucky step makes the loss infinite

    def _decoded(self, code: Tensor) -> Tensor:
        """Return the images (B, 3, size, size) of codes (B, latent)."""
        return self.decoder(code[:, :, None, None])
