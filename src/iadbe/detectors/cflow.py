"""Flows over single feature vectors that know where in the image each one lies; the unlikely ones are anomalous.

Paper: Gudovskiy et al., "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional
    Normalizing Flows", WACV 2022, 2107.12571: per layer eight couplings of two linear layers, conditioned on a code of
    sines and cosines of the position; loss -log σ(log-likelihood per value), shuffled vectors by 256; the map is made
    of the layers' likelihoods, summed at the image's size; the image's score is its largest value. Optimiser,
    warm-up, cosine schedule and the rotation between couplings as in the authors' code.
Differs: in every batch of images a random eighth of the vectors is learnt (``share=1``: all, as in the paper). The
    likelihoods are divided by the largest over the training images (the paper: over the test images), and the map
    is minus the logarithm of their mean (the paper: a constant minus their sum), which orders pixels alike and does
    not run out of digits. Values are first standardised with the training images' mean and deviation per channel
    (not with ``standardise=false``). One input size; the last epoch counts (the paper's table has 128 to 512 pixels
    by category, and the best epoch on the test images).
Numbers: MVTec AD, WRN50-2: image AUROC 98.3, pixel AUROC 98.6, AUPRO 94.6 (the paper, see above); image AUROC 96.2 and
    pixel AUROC 97.1 at 256 (anomalib's table). Measured here after only 15 epochs at 128, embedded network: image AUROC
    of bottle 99.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.blocks.positional_encoding import sinusoidal
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import flattened
from iadbe.layers.flows.coupling import Affine, Brick, Coupling, Flow, Perceptron, Rotation, Standard, measure
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

CLAMP = 1.9
WARM = 2 / 25  # share of the training in which the learning rate rises from a tenth
LAST = 1e-3  # what the cosine leaves of the learning rate
ROWS = 8192  # vectors that go through a flow at once when an image is scored
SMALLEST = 1e-30  # of a likelihood, relative to the largest


class CFLOW(Detector):
    """Conditional normalising flows over feature vectors."""

    paper = "Gudovskiy et al., CFLOW-AD: Real-Time Anomaly Detection via Conditional Flows, WACV 2022, arXiv 2107.12571"
    year = 2022
    kind = "flow"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "share": 1.0, "standardise": False}

    peak: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3, 4),
        weights: str = "auto",
        blocks: int = 8,
        position: int = 128,
        share: float = 0.125,
        vectors: int = 256,
        standardise: bool = True,
        epochs: int = 200,
        learning_rate: float = 2e-4,
        batch: int = 32,
    ) -> None:
        """Choose features and flows.

        Args:
            backbone: any timm model
            layers: layers whose features get a flow each
            weights: a file, auto or none
            blocks: couplings of each flow
            position: values of the code that tells a coupling the position, a multiple of 4
            share: share of a batch's vectors that is learnt from, above 0 and up to 1
            vectors: feature vectors per step of a flow
            standardise: scale features by the training images' statistics
            epochs: how often every training image is shown (the paper: 25 times 8)
            learning_rate: of Adam at its highest
            batch: images from which vectors are drawn
        """
        super().__init__()
        if min(blocks, epochs, batch, vectors) < 1 or learning_rate <= 0:
            raise BadConfig("blocks, epochs, batch, vectors and learning_rate must all be above 0.")
        if not 0 < share <= 1:
            raise BadConfig(f"share is a share above 0 and up to 1, not {share}.")
        if position < 4 or position % 4:
            raise BadConfig(f"position is a multiple of 4, not {position}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.blocks, self.position, self.share, self.vectors = blocks, position, share, vectors
        self.standardise, self.epochs, self.learning_rate, self.batch = standardise, epochs, learning_rate, batch
        self.flows = self._untrained()
        self.register_buffer("peak", torch.zeros(len(self.backbone.layers)))  # largest log-likelihood per value

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.flows = self._untrained().to(train.device)
        if self.standardise:
            measure([flow.bricks[0] for flow in self.flows], (self.backbone(shown) for shown in train.batches(16)))
        optimizer = torch.optim.Adam(self.flows.parameters(), self.learning_rate, fused=True)
        seen, total = 0, self.epochs * len(train)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * schedule(seen / total)
            for flow, features in zip(self.flows, self.backbone(batch), strict=True):
                for rows, places in self._drawn(features, rng):
                    step(optimizer, -nn.functional.logsigmoid(_likelihood(flow, rows, places)).mean())
            seen += len(batch)
        self.peak = self._peak(train)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        size = batch.image.shape[-2:]
        total = torch.zeros(1, device=batch.image.device)
        for log_likelihood, peak in zip(self._log_likelihoods(batch), self.peak, strict=True):
            total = total + upsampled((log_likelihood - peak).exp(), size, sigma=0)
        map_ = -(total / len(self.peak)).clamp_min(SMALLEST).log()
        return Prediction(map_.amax((1, 2)), map_)

    def _drawn(self, features: Tensor, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield random rows (n, C) of (B, C, h, w), none twice, with the codes of their positions (n, P)."""
        rows, codes = flattened(features), self._codes(features)
        count = max(1, round(self.share * len(rows)))
        order = torch.from_numpy(rng.permutation(len(rows))[:count]).to(rows.device)
        for which in order.split(self.vectors):
            yield rows[which], codes[which % len(codes)]

    @torch.no_grad()
    def _log_likelihoods(self, batch: Batch) -> list[Tensor]:
        """Return the log-likelihood per value at every position of each layer: (B, h, w)."""
        found = []
        for flow, features in zip(self.flows, self.backbone(batch), strict=True):
            rows, codes = flattened(features), self._codes(features)
            chunks = torch.arange(len(rows), device=rows.device).split(ROWS)
            values = [_likelihood(flow, rows[c], codes[c % len(codes)]) for c in chunks]
            found.append(torch.cat(values).view(len(features), *features.shape[-2:]))
        return found

    def _peak(self, train: Images) -> Tensor:
        peaks = []
        for number, batch in enumerate(train.batches(16)):
            peaks.append(torch.stack([found.amax() for found in self._log_likelihoods(batch)]))
            progress.report("likelihoods", min((number + 1) * 16, len(train)), len(train))
        return torch.stack(peaks).amax(0)

    def _codes(self, features: Tensor) -> Tensor:
        """Return the code of each position, row after row: (h * w, P)."""
        return sinusoidal(self.position, *features.shape[-2:]).flatten(1).T.to(features.device)

    def _untrained(self) -> nn.ModuleList:
        return nn.ModuleList(Flow(self._bricks(channels)) for channels in self.backbone.channels)

    def _bricks(self, channels: int) -> list[Brick]:
        def subnet(inside: int, outside: int) -> nn.Module:
            return Perceptron(inside, outside, 2 * (inside + self.position), self.position)

        bricks: list[Brick] = [Standard(channels)]
        for _ in range(self.blocks):
            bricks += [Coupling(channels, subnet, CLAMP), Affine(channels), Rotation(channels)]
        return bricks


def schedule(done: float) -> float:
    """Return the share of the learning rate when a share of the training is done: a straight rise, then a cosine."""
    cosine = LAST + (1 - LAST) * (1 + math.cos(math.pi * max(done, WARM))) / 2
    return 0.1 + (cosine - 0.1) * min(1.0, done / WARM)


def _likelihood(flow: Flow, rows: Tensor, places: Tensor) -> Tensor:
    """Return the Gaussian log-likelihood of rows (n, C), divided by the number of values: (n,)."""
    z, log_det = flow(rows, places)
    return (log_det - z.square().sum(1) / 2) / rows.shape[1] - math.log(2 * math.pi) / 2
