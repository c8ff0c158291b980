"""Four heads learn seen, pseudo and latent-residual anomalies and normality; the sum of their scores is the score.

Paper: Ding et al., "Catching Both Gray and Black Swans: Open-set Supervised Anomaly Detection" (DRA), CVPR 2022,
    2203.14506. On a pretrained network's last feature map, a plain head learns labelled ("seen") anomalies, another one
    pseudo anomalies (CutMix: a patch of the image, with jittered colours, pasted elsewhere), a composite head the
    difference from the mean of a few normal reference images, and a holistic head normality. Plain and composite heads
    score positions, the mean of the 10 % largest absolute ones is their score; all heads have the deviation loss, at
    the image's size and at half of it. Score: seen + pseudo + composite - holistic. Constants: the authors' code.
Differs:
    * An epoch is 20 steps. The learning rate falls to a tenth in thirds of the steps, whatever their number.
    * The reference images of predictions are the same for all: they are chosen with the fit. The authors go on to draw
      training images, so that their scores change from one evaluation to the next.
    * The image at half the size is interpolated linearly with antialiasing. The authors take every second pixel.
    * There is a map: the sum of the position scores of the three heads that have such. The paper has none.
Numbers: MVTec AD, ResNet-18, 448: image AUROC 95.9 with ten labelled anomalies, 88.3 with one.
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
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import average_pooled, joined, moved_alike
from iadbe.layers.synthetic.augmentations import rotated
from iadbe.layers.synthetic.cutpaste import cut_paste
from iadbe.layers.training.anomalies import anomaly_source, labels_needed
from iadbe.layers.training.deviation import deviation_loss, top_mean
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

TURN = 180.0  # degrees, largest rotation of a training image
DECAYS = 3  # times that the learning rate falls to a tenth
NORM = 1.0  # to which gradients are clipped
PSEUDO = 0.5  # share of the normal images that become pseudo anomalies
SCALES = 2  # the image, and half of it


class DRA(Detector):
    """Disentangled representations of anomalies."""

    paper = "Ding et al., Catching Both Gray and Black Swans: Open-set Supervised Anomaly Detection, CVPR 2022"
    year = 2022
    kind = "supervised"
    needs_for = {"anomalies": {"labelled": ["labels"]}}
    can = frozenset({"localise", "labelled"})
    whole_image = "the reference that residuals are of is a mean of whole images"
    paper_view = {"resize": 448}
    paper_params = {"backbone": "resnet18.tv_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        weights: str = "auto",
        anomalies: Literal["labelled", "synthetic"] = "labelled",
        textures: str = "",
        references: int = 5,
        top: float = 0.1,
        steps: int = 600,
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
            references: number of normal images from whose mean features the composite head takes the difference
            top: share of the positions whose mean score is the image's, above 0 and up to 1
            steps: number of training steps
            learning_rate: of Adam with weight decay 1e-5, at the start
            batch: images per step, a third of them anomalies
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        self.needs = self.needs | labels_needed(anomalies)
        if min(references, steps) < 1 or batch < 3 or learning_rate <= 0 or not 0 < top <= 1:
            raise BadConfig(
                "references, steps and learning_rate must be above 0, batch at least 3, and top above 0 and up to 1."
            )
        self.backbone, self.initial, self.anomalies, self.textures = backbone, weights, anomalies, textures
        self.references, self.top, self.steps, self.batch = references, top, steps, batch
        self.learning_rate, self.sigma = learning_rate, sigma
        for scale in range(SCALES):
            self.register_buffer(f"reference{scale}", torch.empty(0))  # (1, C, h, w)
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
        count = 2 * self.batch // 3  # normal images and pseudo anomalies
        batches = loop(train, steps=self.steps, batch=count + self.references, rng=rng, state=(optimizer, rate, source))
        for batch in batches:
            shown = batch.taken(batch.cycled(count + self.references))
            reference, normal = shown.image.split([self.references, count])
            pseudo = (torch.rand(count, generator=source) < PSEUDO).to(normal.device)
            mixed = torch.where(pseudo.view(-1, 1, 1, 1), cut_paste(normal, source)[0], normal)
            some = slice(self.references, self.references + self.batch - count)
            seen = others(normal[: self.batch - count], source, None if shown.region is None else shown.region[some])
            image, region = (
                torch.cat([reference, mixed, seen.image]),
                joined((shown.image, shown.region), (seen.image, seen.region)),
            )
            image, region = moved_alike(lambda x: rotated(x, TURN, source), image, region)
            kind = torch.cat([pseudo * 2, torch.ones(len(seen.image), dtype=torch.long, device=pseudo.device)])
            step(optimizer, self._loss(image, kind, source, region), norm=NORM)
            rate.step()
        self.eval()
        chosen = train.subset(sorted(rng.permutation(len(train))[: self.references].tolist()))
        with torch.no_grad():
            images = torch.cat([batch.image for batch in chosen.batches(16)])
            for scale in range(SCALES):
                setattr(self, f"reference{scale}", self.encoder(halved(images, scale)).mean(0, keepdim=True))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        scores, maps = [], []
        for scale in range(SCALES):
            features = self.encoder(halved(batch.image, scale))
            heads = self._heads(features, getattr(self, f"reference{scale}"))
            scores.append(self._image_scores(features, heads, batch.region))
            maps.append(upsampled(torch.stack(heads).sum(0), batch.image.shape[-2:], self.sigma, region=batch.region))
        holistic, *others = torch.stack(scores).mean(0)
        return Prediction(torch.stack(others).sum(0) - holistic, torch.stack(maps).mean(0))

    def _initialise(self) -> None:
        """Make the network that training starts from; torch's generator draws what is not pretrained."""
        self.encoder = Encoder(self.backbone, self.initial)
        dim = self.encoder.channels
        self.holistic = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(inplace=True), nn.Linear(256, 1))
        self.seen, self.pseudo, self.composite = (nn.Conv2d(dim, 1, 1) for _ in range(3))
        self.residual = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.BatchNorm2d(dim), nn.ReLU(inplace=True))

    def _heads(self, features: Tensor, reference: Tensor) -> list[Tensor]:
        """Return the absolute position scores (B, h, w) of the heads: seen, pseudo, composite."""
        residual = self.residual(reference - features)
        heads = ((self.seen, features), (self.pseudo, features), (self.composite, residual))
        return [head(x)[:, 0].abs() for head, x in heads]

    def _image_scores(self, features: Tensor, heads: list[Tensor], region: Tensor | None) -> Tensor:
        """Return the scores (4, B) of holistic, seen, pseudo and composite head."""
        holistic = self.holistic(average_pooled(features, region))[:, 0].abs()
        return torch.stack([holistic, *(top_mean(head, self.top, region) for head in heads)])

    def _loss(self, image: Tensor, kind: Tensor, source: torch.Generator, region: Tensor | None = None) -> Tensor:
        """Return the sum () of the heads' deviation losses.

        Args:
            image: reference images, then the others (N + B, 3, H, W)
            kind: of the others (B,): 0 normal, 1 labelled anomaly, 2 pseudo anomaly
            source: draws the scores of the prior
            region: which pixels of all of them count, (N + B, H, W) bool; None: all
        """
        counts = None if region is None else region[self.references :]
        scores = []
        for scale in range(SCALES):
            features = self.encoder(halved(image, scale))
            reference, features = features[: self.references].mean(0, keepdim=True), features[self.references :]
            scores.append(self._image_scores(features, self._heads(features, reference), counts))
        holistic, seen, pseudo, composite = torch.stack(scores).mean(0)
        without_pseudo, without_seen = kind != 2, kind != 1
        terms = (
            (holistic, kind == 0),
            (seen[without_pseudo], kind[without_pseudo] != 0),
            (pseudo[without_seen], kind[without_seen] != 0),
            (composite, kind != 0),
        )
        return torch.stack([deviation_loss(score, target, source) for score, target in terms]).sum()
