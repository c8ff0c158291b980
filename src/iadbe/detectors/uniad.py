"""A transformer reconstructs features from everywhere but their own surroundings; what it cannot tell is anomalous.

Paper: You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022, 2206.03687. Four layers of a
    network on one grid, with Gaussian jitter of their length while training; an encoder and a decoder of four blocks
    each, in all of whose attention a 7 x 7 neighbourhood is masked, and every decoder block starts from a query of its
    own per position; loss is the mean squared error, the map the length of the error, an image's score the largest
    mean of the map over 16 x 16 pixels. One detector for many categories; it does as well for one.
Differs: dropout thins out what blocks give, but the weights of the attention only where asked (``thinning=0.1``);
    features are first multiplied by one number that gives them a root mean square of 1, so that the learning rate
    suits every backbone (``rescale=False``: as they are); layers are interpolated with pixel centres aligned, not
    corners; on grids of less than 8 x 8 the masked neighbourhood is smaller, so that there is something to look at; the
    last epoch counts; a step has 8 images, as on one GPU with the authors' code, which they found to do better than
    eight times that.
Numbers: MVTec AD, all categories together, EfficientNet-B4, 224: image AUROC 96.5, pixel AUROC 96.8.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.blocks.attention import AttentionLayer, FeedForward, neighbour_mask
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import concatenated
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

DROPOUT = 0.1
LATE = 0.8  # of the training, after which a tenth of the learning rate is left


class UniAD(Detector):
    """Neighbour-masked transformer with layer-wise queries."""

    paper = "You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022, arXiv 2206.03687"
    year = 2022
    kind = "reconstruction"
    can = frozenset({"localise"})
    paper_view = {"resize": 224}
    paper_params = {"backbone": "efficientnet_b4.ra2_in1k", "thinning": 0.1, "rescale": False}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (0, 1, 2, 3),
        weights: str = "auto",
        width: int = 256,
        blocks: int = 4,
        heads: int = 8,
        neighbourhood: int = 7,
        jitter: float = 20.0,
        thinning: float = 0.0,
        rescale: bool = True,
        epochs: int = 1000,
        learning_rate: float = 1e-4,
        batch: int = 8,
    ) -> None:
        """Choose features and transformer, and how long it learns.

        Args:
            backbone: any timm model
            layers: layers that are stacked, on the grid of the last
            weights: a file, auto or none
            width: values of a token; a multiple of heads
            blocks: of the encoder, and of the decoder
            heads: of the attention
            neighbourhood: side of the square around itself that a position may not look at, odd; 0: none
            jitter: deviation of the noise on a training feature, in lengths of its token per value
            thinning: dropout on the weights of the attention; it takes several times as long with it
            rescale: bring features to a root mean square of 1
            epochs: how often every training image is shown
            learning_rate: of AdamW with weight decay 1e-4; a tenth after 80 % of the epochs
            batch: images per step
        """
        super().__init__()
        if min(width, blocks, heads, epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig("width, blocks, heads, epochs, batch and learning_rate must all be above 0.")
        if width % heads or width % 2:
            raise BadConfig(f"width {width} is not an even multiple of {heads} heads.")
        if neighbourhood and neighbourhood % 2 == 0:
            raise BadConfig(f"neighbourhood is odd, or 0, not {neighbourhood}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.width, self.blocks, self.heads, self.neighbourhood = width, blocks, heads, neighbourhood
        self.thinning, self.jitter, self.epochs, self.learning_rate, self.batch = (
            thinning,
            jitter,
            epochs,
            learning_rate,
            batch,
        )
        self.rescale, self.level = rescale, Rescale(1.0)
        self.transformer = self._untrained(1, 1)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        cached = FeatureCache(lambda batch: [self._aligned(batch)])
        self.level = Rescale(1.0).to(train.device)
        if self.rescale:
            self.level.fit(cached(batch)[0] for batch in train.batches(16))
        height, width = cached(next(train.batches(1)))[0].shape[-2:]
        with seeded(rng):  # first weights, jitter and dropout alike
            self.transformer = self._untrained(height, width).to(train.device).train()
            optimizer = torch.optim.AdamW(self.transformer.parameters(), self.learning_rate, weight_decay=1e-4)
            late = max(1, round(LATE * self.epochs)) * -(-len(train) // self.batch)
            rate = torch.optim.lr_scheduler.StepLR(optimizer, late, 0.1)
            for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
                tokens = self.level(cached(batch)[0]).flatten(2).transpose(1, 2)  # (B, N, C)
                size = tokens.norm(dim=2, keepdim=True) / tokens.shape[2]
                again = self.transformer(tokens + self.jitter * size * torch.randn_like(tokens), height, width)
                step(optimizer, F.mse_loss(again, tokens), 0.1)
                rate.step()
        self.transformer.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.transformer.eval()
        features = self.level(self._aligned(batch))
        height, width = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        error = (self.transformer(tokens, height, width) - tokens).norm(dim=2).view(-1, height, width)
        map_ = upsampled(error, batch.image.shape[-2:], sigma=0)
        pool = min(16, *map_.shape[-2:])
        return Prediction(F.avg_pool2d(map_, pool, stride=1).amax((1, 2)), map_)

    def _aligned(self, batch: Batch) -> Tensor:
        """Return all layers on the grid of the last: (B, C, h, w)."""
        return concatenated(self.backbone(batch)[::-1], "bilinear")

    def _untrained(self, height: int, width: int) -> _Transformer:
        return _Transformer(self, height, width)


class _Transformer(nn.Module):
    """From tokens (B, N, C) to tokens of the same shape."""

    def __init__(self, chosen: UniAD, height: int, width: int) -> None:
        super().__init__()
        channels, dim, blocks = sum(chosen.backbone.channels), chosen.width, chosen.blocks
        self.neighbourhood = chosen.neighbourhood
        shape = (dim, chosen.heads, chosen.thinning)
        self.enter, self.leave = nn.Linear(channels, dim), nn.Linear(dim, channels)
        self.rows = nn.Parameter(torch.empty(height, dim // 2))
        self.columns = nn.Parameter(torch.empty(width, dim // 2))
        self.encoder = nn.ModuleList([_Block(*shape, 1) for _ in range(blocks)])
        self.decoder = nn.ModuleList([_Block(*shape, 2) for _ in range(blocks)])
        self.queries = nn.ParameterList([nn.Parameter(torch.empty(height * width, dim)) for _ in range(blocks)])
        self.norm = nn.LayerNorm(dim)
        for name, parameter in self.named_parameters():
            if name in ("rows", "columns"):
                nn.init.uniform_(parameter)
            elif name.startswith("queries"):
                nn.init.normal_(parameter)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        forbidden = neighbour_mask(height, width, self.neighbourhood)
        forbidden = None if forbidden is None else forbidden.to(tokens.device)
        columns, rows = self.columns.repeat(height, 1), self.rows.repeat_interleave(width, 0)
        position = torch.cat([columns, rows], 1)  # (N, dim)
        memory = self.enter(tokens)
        for block in self.encoder:
            memory = block(memory, [memory], position, forbidden)
        found = memory
        for block, query in zip(self.decoder, self.queries, strict=True):
            found = block(query.expand_as(found), [memory, found], position, forbidden)
        return self.leave(self.norm(found))


class _Block(nn.Module):
    """Attention to one memory after another, then the feed-forward part."""

    def __init__(self, dim: int, heads: int, thinning: float, memories: int) -> None:
        super().__init__()
        self.attended = nn.ModuleList([AttentionLayer(dim, heads, DROPOUT, thinning) for _ in range(memories)])
        self.forward_part = FeedForward(dim, 4 * dim, DROPOUT)

    def forward(self, x: Tensor, memories: list[Tensor], position: Tensor, forbidden: Tensor | None) -> Tensor:
        for attend, memory in zip(self.attended, memories, strict=True):
            x = attend(x, memory, position, forbidden)
        return self.forward_part(x)
