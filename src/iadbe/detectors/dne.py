"""A network learns one task after the other; a Gaussian per task, from which it replays, remembers normal embeddings.

Paper: Li et al., "Towards Continual Adaptation in Industrial Anomaly Detection", ACM MM 2022 (DNE, distribution of
    normal embeddings). Each task (a category, or several) goes on training a vision transformer to tell normal images
    from images with a pasted patch (CutPaste). The class tokens of the task's normal images, of unit length, have a
    mean and a covariance, which are kept with their number; the images are not. To score, as many embeddings as each
    earlier task had are drawn from its Gaussian, scaled to unit length and joined with those of the present task. One
    Gaussian is fitted to all; the score is the Mahalanobis distance to it. There is no map.
Differs:
    * The default network is the embedded EfficientNet, so that nothing is downloaded. Networks without a class token
      are embedded by the mean of the last feature map. A pretrained network keeps the statistics of its batch norms,
      and one from scratch those of its first task, for they would shift the embeddings of earlier tasks.
    * A task is embedded once its training has ended. In the authors' code embeddings are gathered in the last epoch,
      while the network still changes.
    * Draws are from the covariance. IM-IAD's port (open-iad) keeps its inverse in its place, applies a softmax before a
      loss that has one, pastes no patches by its configuration, and gathers the embeddings of all epochs.
    * Adam starts afresh at each task. The learning rate falls to 0 along a cosine within a task, step by step.
    * Covariances are those of Ledoit and Wolf, as in the authors' code. A task whose embeddings are all equal has none.
    * Without a continual setting there is one task, and what is left is CutPaste's binary variant with a transformer.
Numbers: MVTec AD in the continual setting, one category per task: image AUROC 59.5, forgetting 20.0 (IM-IAD's run).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.encoder import Encoder
from iadbe.layers.features.region import joined
from iadbe.layers.statistics.shrinkage import ShrunkGaussian, gaussian_draws, ledoit_wolf
from iadbe.layers.synthetic.cutpaste import cut_paste
from iadbe.layers.synthetic.photometric import colour_jitter
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

JITTER = 0.1  # strength of the colour jitter of the whole image
ROUNDING = 1e-12  # sum of the variances of embeddings that differ by float32's rounding alone


class DNE(Detector):
    """Continual learning by Gaussians of the normal embeddings of each task."""

    paper = "Li et al., Towards Continual Adaptation in Industrial Anomaly Detection, ACM MM 2022"
    year = 2022
    kind = "continual"
    can = frozenset({"continual"})
    whole_image = "the embedding of a transformer is its class token, of the whole image"
    paper_view = {"resize": 224}
    paper_params = {"backbone": "vit_base_patch16_224.sam_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layer: int = -1,
        weights: str = "auto",
        epochs: int = 50,
        learning_rate: float = 1e-4,
        batch: int = 32,
    ) -> None:
        """Choose the network and its training.

        Args:
            backbone: any timm model; with a transformer it is the paper's method
            layer: number of the layer, or block, that is embedded, and the last that is trained; -1: the network's last
            weights: with which the first task starts: a file, auto or none (from scratch)
            epochs: passes over the training images of a task
            learning_rate: of Adam with weight decay 3e-5, at the start of half a cosine
            batch: normal images per step; each has a copy with a pasted patch
        """
        super().__init__()
        if min(epochs, batch) < 1 or learning_rate <= 0 or layer < -1:
            raise BadConfig("epochs, batch and learning_rate must be above 0, layer at least -1.")
        self.backbone, self.layer, self.initial = backbone, layer, weights
        self.epochs, self.learning_rate, self.batch = epochs, learning_rate, batch
        self.means: Tensor
        self.covariances: Tensor
        self.counts: Tensor
        self._initialise()

    def weights(self) -> str:
        return self.encoder.description

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        with seeded(rng):
            self._initialise()
        self.update(train, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        """Learn a further task; earlier ones are remembered by their Gaussians alone."""
        train = train.normal()
        self.to(train.device)
        self._train(train, rng)
        self.eval()
        with torch.no_grad():
            rows = torch.cat([self._embedded(batch) for batch in train.batches(16)])
            replayed = [*self._replayed(generator(rng)), rows]
            self.gaussian.fit(torch.cat(replayed))
            self._remember(rows)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        return Prediction(self.gaussian.distance(self._embedded(batch)), None)

    def _initialise(self) -> None:
        """Make the network that the first task starts from, and an empty memory."""
        self.encoder = Encoder(self.backbone, self.initial, () if self.layer < 0 else (self.layer,))
        self.head = nn.Linear(self.encoder.channels, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        dim = self.encoder.channels
        self.gaussian = ShrunkGaussian()
        self.register_buffer("means", torch.empty(0, dim))  # of T tasks: (T, D)
        self.register_buffer("covariances", torch.empty(0, dim, dim))  # (T, D, D)
        self.register_buffer("counts", torch.empty(0, dtype=torch.int64))  # (T,)

    def _train(self, train: Images, rng: np.random.Generator) -> None:
        """Go on training network and head to tell normal images from those with a pasted patch."""
        source = generator(rng)
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate, weight_decay=3e-5)
        steps = self.epochs * -(-len(train) // self.batch)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.train()
        if self.initial != "none" or len(self.counts):
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, cosine, source)):
            normal = colour_jitter(batch.image, source, JITTER)
            pasted, _ = cut_paste(normal, source)
            both = torch.cat([normal, pasted])
            region = joined((normal, batch.region), (pasted, batch.region))
            logits = self.head(self.encoder.embedding(both, region))
            truth = torch.arange(2, device=logits.device).repeat_interleave(len(batch))
            step(optimizer, F.cross_entropy(logits, truth))
            cosine.step()

    def _embedded(self, batch: Batch) -> Tensor:
        """Return the embeddings (B, D) of images, of unit length."""
        return F.normalize(self.encoder.embedding(batch.image, batch.region))

    def _replayed(self, source: torch.Generator) -> list[Tensor]:
        """Draw the embeddings (N, D) of each earlier task, of unit length."""
        tasks = zip(self.means, self.covariances, self.counts.tolist(), strict=True)
        return [F.normalize(gaussian_draws(mean, covariance, count, source)) for mean, covariance, count in tasks]

    def _remember(self, rows: Tensor) -> None:
        """Keep mean, covariance and number of a task's embeddings (N, D)."""
        exact = rows.cpu().double()
        covariance = torch.zeros(rows.shape[1], rows.shape[1])
        if float(exact.var(0, correction=0).sum()) > ROUNDING:
            covariance = ledoit_wolf(exact)[0]
        mean, covariance = exact.mean(0, keepdim=True).to(rows), covariance.to(rows)
        self.means = torch.cat([self.means, mean])
        self.covariances = torch.cat([self.covariances, covariance[None]])
        self.counts = torch.cat([self.counts, self.counts.new_tensor([len(rows)])])
