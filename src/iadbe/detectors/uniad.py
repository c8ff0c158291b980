"""A transformer with neighbour-masked attention reconstructs features; the score is the reconstruction error.

Paper: You et al., "A Unified Model for Multi-class Anomaly Detection", NeurIPS 2022, arXiv:2206.03687. Four layers of a
    backbone are concatenated on one grid. In training, features get Gaussian noise (jitter). Encoder and decoder have
    four blocks each. All their attention masks a 7 x 7 neighbourhood, and every decoder block has its own query per
    position (layer-wise query). The loss is the mean squared error. The map is the norm of the error. An image's score
    is the largest mean of the map over 16 x 16 pixels. One detector serves many categories, or a single one.
Differs:
    * Dropout acts on what blocks output. ``attention_dropout=0.1`` also applies it to attention weights, as the authors
      do.
    * Features are scaled to a root mean square of 1, so that the learning rate suits every backbone.
      ``rescale=False`` leaves them as they are.
    * Each block starts with its own attention projections and query. In the authors' code these are equal copies.
    * Layers and maps are interpolated with ``align_corners=False``.
    * On grids smaller than 8 x 8 the masked neighbourhood is smaller, so that each position can attend to others.
    * The last epoch counts.
    * A step has 8 images, as the authors' code on one GPU. They report better results than with eight times as many.
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
from iadbe.layers.features.region import at_grid, masked, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

DROPOUT = 0.1
STACKED = 0.5**0.5  # torch initialises query, key and value as one matrix (3E, E), whose bound is this much smaller
DECAY_AT = 0.8  # share of the epochs after which the learning rate is a tenth


class UniAD(Detector):
    """Neighbour-masked transformer with layer-wise queries."""

    paper = "You et al., A Unified Model for Multi-class Anomaly Detection, NeurIPS 2022, arXiv 2206.03687"
    year = 2022
    version = 2  # 2: initial weights as in the authors' code
    kind = "reconstruction"
    can = frozenset({"localise"})
    paper_view = {"resize": 224}
    renamed = {"thinning": "attention_dropout"}
    paper_params = {"backbone": "tf_efficientnet_b4.aa_in1k", "attention_dropout": 0.1, "rescale": False}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (0, 1, 2, 3),
        weights: str = "auto",
        width: int = 256,
        blocks: int = 4,
        heads: int = 8,
        neighbourhood: int = 7,
        jitter: float = 20.0,
        attention_dropout: float = 0.0,
        rescale: bool = True,
        epochs: int = 1000,
        learning_rate: float = 1e-4,
        batch: int = 8,
    ) -> None:
        """Choose features, transformer and training.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the last
            weights: a file, auto or none
            width: dimensions of a token; an even multiple of heads
            blocks: number of blocks in the encoder, and in the decoder
            heads: number of attention heads
            neighbourhood: side of the masked square around each position, odd; 0: no mask
            jitter: α, standard deviation of the noise, in units of the token's norm divided by its dimensions
            attention_dropout: dropout on attention weights; above 0 training takes several times as long
            rescale: scale features to a root mean square of 1
            epochs: passes over the training images
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
        self.attention_dropout, self.jitter, self.epochs, self.learning_rate, self.batch = (
            attention_dropout,
            jitter,
            epochs,
            learning_rate,
            batch,
        )
        self.rescale, self.level = rescale, Rescale(1.0)
        self.transformer = self._untrained(1, 1)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        cached = FeatureCache(lambda batch: [self._features(batch)])
        self.level = Rescale(1.0).to(train.device)
        if self.rescale:
            self.level.fit(within(cached(batch)[0], batch.region) for batch in train.batches(16))
        height, width = cached(next(train.batches(1)))[0].shape[-2:]
        with seeded(rng):  # initial weights, jitter and dropout
            self.transformer = self._untrained(height, width).to(train.device).train()
            optimizer = torch.optim.AdamW(self.transformer.parameters(), self.learning_rate, weight_decay=1e-4)
            milestone = max(1, round(DECAY_AT * self.epochs)) * -(-len(train) // self.batch)
            rate = torch.optim.lr_scheduler.StepLR(optimizer, milestone, 0.1)
            for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, rate)):
                tokens = self.level(cached(batch)[0]).flatten(2).transpose(1, 2)  # (B, N, C)
                scale = tokens.norm(dim=2, keepdim=True) / tokens.shape[2]
                reconstruction = self.transformer(
                    tokens + self.jitter * scale * torch.randn_like(tokens), height, width
                )
                counts = at_grid(batch.region, (height, width))
                if counts is not None:
                    reconstruction, tokens = reconstruction[counts.flatten(1)], tokens[counts.flatten(1)]
                step(optimizer, F.mse_loss(reconstruction, tokens), 0.1)
                rate.step()
        self.transformer.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.transformer.eval()
        features = self.level(self._features(batch))
        height, width = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        error = (self.transformer(tokens, height, width) - tokens).norm(dim=2).view(-1, height, width)
        map_ = upsampled(error, batch.image.shape[-2:], sigma=0, region=batch.region)
        return Prediction(_highest_mean(map_, batch.region, min(16, *map_.shape[-2:])), map_)

    def _features(self, batch: Batch) -> Tensor:
        """Return all layers on the grid of the last: (B, C, h, w)."""
        return concatenated(self.backbone(batch)[::-1], "bilinear")

    def _untrained(self, height: int, width: int) -> _Transformer:
        return _Transformer(self, height, width)


class _Transformer(nn.Module):
    """Encoder and decoder: from tokens (B, N, C) to their reconstruction."""

    renamed_tensors = {
        "enter": "input_projection",
        "leave": "output_projection",
        "rows": "row_embedding",
        "columns": "column_embedding",
    }

    def __init__(self, chosen: UniAD, height: int, width: int) -> None:
        super().__init__()
        channels, dim, blocks = sum(chosen.backbone.channels), chosen.width, chosen.blocks
        self.neighbourhood = chosen.neighbourhood
        shape = (dim, chosen.heads, chosen.attention_dropout)
        self.input_projection, self.output_projection = nn.Linear(channels, dim), nn.Linear(dim, channels)
        self.row_embedding = nn.Parameter(torch.empty(height, dim // 2))
        self.column_embedding = nn.Parameter(torch.empty(width, dim // 2))
        self.encoder = nn.ModuleList([_Block(*shape, 1) for _ in range(blocks)])
        self.decoder = nn.ModuleList([_Block(*shape, 2) for _ in range(blocks)])
        self.queries = nn.ParameterList([nn.Parameter(torch.empty(height * width, dim)) for _ in range(blocks)])
        self.norm = nn.LayerNorm(dim)
        for name, parameter in self.named_parameters():
            if name in ("row_embedding", "column_embedding"):
                nn.init.uniform_(parameter)
            elif name.startswith("queries"):
                nn.init.normal_(parameter)
            elif name.endswith(("query.weight", "key.weight", "value.weight")):
                nn.init.xavier_uniform_(parameter, gain=STACKED)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        masked = neighbour_mask(height, width, self.neighbourhood)
        masked = None if masked is None else masked.to(tokens.device)
        columns, rows = self.column_embedding.repeat(height, 1), self.row_embedding.repeat_interleave(width, 0)
        position = torch.cat([columns, rows], 1)  # (N, dim)
        memory = self.input_projection(tokens)
        for block in self.encoder:
            memory = block(memory, [memory], position, masked)
        found = memory
        for block, query in zip(self.decoder, self.queries, strict=True):
            found = block(query.expand_as(found), [memory, found], position, masked)
        return self.output_projection(self.norm(found))


class _Block(nn.Module):
    """Attention to each memory in turn, then the feed-forward layer."""

    renamed_tensors = {"attended": "attention", "forward_part": "feed_forward"}

    def __init__(self, dim: int, heads: int, attention_dropout: float, memories: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            [AttentionLayer(dim, heads, DROPOUT, attention_dropout) for _ in range(memories)]
        )
        self.feed_forward = FeedForward(dim, 4 * dim, DROPOUT)

    def forward(self, x: Tensor, memories: list[Tensor], position: Tensor, masked: Tensor | None) -> Tensor:
        for attend, memory in zip(self.attention, memories, strict=True):
            x = attend(x, memory, position, masked)
        return self.feed_forward(x)


def _highest_mean(map_: Tensor, region: Tensor | None, side: int) -> Tensor:
    """Return the highest mean (B,) of windows of ``side`` x ``side`` pixels, of those that lie in the region most."""
    means = F.avg_pool2d(masked(map_, region), side, stride=1)
    if region is None:
        return means.amax((1, 2))
    share = F.avg_pool2d(region.float(), side, stride=1)
    inside = share >= share.amax((1, 2), keepdim=True)
    return (means / share.clamp(min=1e-6)).masked_fill(~inside, -torch.inf).amax((1, 2))
