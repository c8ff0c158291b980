"""A network scores positions so that labelled anomalies deviate from normal images; the highest make the score.

Paper: Pang et al., "Explainable Deep Few-shot Anomaly Detection with Deviation Networks" (DevNet), 2021, 2108.00462. A
    1 x 1 convolution scores each position of a pretrained network's last feature map; the mean of the 10 % largest
    absolute scores is the image's, averaged over the image and half its size (multiple instance learning). The
    deviation loss pulls scores of normal images to those of a Gaussian prior, and pushes labelled anomalies at least
    five of its standard deviations above them; network and convolution are trained together, on batches of which half
    are anomalies. The gradient of the score with respect to the pixels is the map. Constants are those of the authors'
    code, as M-3LAB/open-iad repeats them.
Differs:
    * An epoch is 20 steps. The learning rate falls to a tenth after each fifth of the steps, whatever their number.
    * The image at half the size is interpolated linearly with antialiasing. The authors take every second pixel.
    * The map is the gradient's absolute value, summed over colours and smoothed.
Numbers: MVTec AD, ResNet-18, 448, ten labelled anomalies: image AUROC 94.5.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.encoder import Encoder, halved
from iadbe.layers.features.anomaly_map import gaussian_blur
from iadbe.layers.features.region import joined, moved_alike
from iadbe.layers.synthetic.augmentations import rotated
from iadbe.layers.training.anomalies import anomaly_source, labels_needed
from iadbe.layers.training.deviation import deviation_loss, top_mean
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

TURN = 180.0  # degrees, largest rotation of a training image
DECAYS = 5  # times that the learning rate falls to a tenth
NORM = 1.0  # to which gradients are clipped


class DevNet(Detector):
    """Deviation network."""

    paper = "Pang et al., Explainable Deep Few-shot Anomaly Detection with Deviation Networks, 2021, arXiv 2108.00462"
    year = 2021
    kind = "supervised"
    needs_for = {"anomalies": {"labelled": ["labels"]}}
    can = frozenset({"localise", "labelled"})
    not_exportable = "its map is the gradient of the score by the image, which an exported file cannot compute"
    paper_view = {"resize": 448}
    paper_params = {"backbone": "resnet18.tv_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        weights: str = "auto",
        anomalies: Literal["labelled", "synthetic"] = "labelled",
        textures: str = "",
        scales: int = 2,
        top: float = 0.1,
        steps: int = 1000,
        learning_rate: float = 2e-4,
        batch: int = 48,
        sigma: float = 4.0,
    ) -> None:
        """Choose network and training.

        Args:
            backbone: any timm model; it is trained
            weights: with which training starts: a file, auto or none
            anomalies: labelled training images, or synthetic ones, which need no labels
            textures: of synthetic anomalies: a folder of texture images; empty: textures are drawn
            scales: number of sizes at which the image is scored, each half of the one before
            top: share of the positions whose mean score is the image's, above 0 and up to 1
            steps: number of training steps
            learning_rate: of Adam with weight decay 1e-5, at the start
            batch: images per step, half of them anomalies
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        self.needs = self.needs | labels_needed(anomalies)
        if min(scales, steps) < 1 or batch < 2 or learning_rate <= 0 or not 0 < top <= 1:
            raise BadConfig(
                "scales, steps and learning_rate must be above 0, batch at least 2, and top above 0 and up to 1."
            )
        self.backbone, self.initial, self.anomalies, self.textures = backbone, weights, anomalies, textures
        self.scales, self.top, self.steps, self.batch = scales, top, steps, batch
        self.learning_rate, self.sigma = learning_rate, sigma
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
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, weight_decay=1e-5)
        rate = torch.optim.lr_scheduler.StepLR(optimizer, -(-self.steps // DECAYS), 0.1)
        half = self.batch // 2
        for batch in loop(train, steps=self.steps, batch=half, rng=rng, state=(optimizer, rate, source)):
            normal = batch.taken(batch.cycled(half))
            seen = others(normal.image, source, normal.region)
            image, region = (
                torch.cat([normal.image, seen.image]),
                joined((normal.image, normal.region), (seen.image, seen.region)),
            )
            image, region = moved_alike(lambda x: rotated(x, TURN, source), image, region)
            anomalous = torch.arange(len(image), device=image.device) >= half
            step(optimizer, deviation_loss(self._score(image, region), anomalous, source), norm=NORM)
            rate.step()
        self.eval()

    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        with torch.inference_mode(False), torch.enable_grad():
            image = batch.image.clone().requires_grad_()
            score = self._score(image, batch.region)
            (gradient,) = torch.autograd.grad(score.sum(), image)
        return Prediction(
            score.detach(), gaussian_blur(gradient.abs().sum(1, keepdim=True), self.sigma, region=batch.region)[:, 0]
        )

    def _initialise(self) -> None:
        """Make the network that training starts from; torch's generator draws what is not pretrained."""
        self.encoder = Encoder(self.backbone, self.initial)
        self.scoring = nn.Conv2d(self.encoder.channels, 1, 1)

    def _score(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the scores (B,) of images (B, 3, H, W), of what counts."""
        scores = [
            top_mean(self.scoring(self.encoder(halved(image, scale)))[:, 0].abs(), self.top, region)
            for scale in range(self.scales)
        ]
        return torch.stack(scores).mean(0)
