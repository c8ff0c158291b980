"""A decoder draws a frozen transformer's tokens again, too loosely and too noisily to learn the identity.

Paper: Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025,
    2405.14325. The mean of several blocks' tokens passes a perceptron with dropout (the noisy bottleneck) and blocks
    with linear attention; the first half of the decoder shall be as the later half of the layers, its second half as
    the earlier one, only in the mean (loose groups). Loss is one minus the cosine of the whole map, in which the
    gradient of the best reconstructed positions is scaled down (a share that rises to 90 % over 1000 steps). The map is
    the mean of one minus the cosine at each position, an image's score the mean of its largest hundredth.
Differs: any backbone can be taken. With a transformer it is the paper's, but for the class and register tokens, which
    are left out. Other networks' layers are brought to the grid of the last, each to a root mean square of 1, and
    turned by one fixed random matrix with orthonormal rows or columns into tokens of ``width`` values, in which they
    can be added without being mixed up; the default is such a network, as weights of DINOv2 are not at hand everywhere.
    A short training warms up for a tenth of its steps at most.
Numbers: MVTec AD, DINOv2-R ViT-B/14, 448 cropped to 392, all categories together: image AUROC 99.6, pixel AUROC 98.4,
    AUPRO 94.8.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.blocks.attention import LinearBlock
from iadbe.layers.features.anomaly_map import blur_matrix, upsampled
from iadbe.layers.features.patches import concatenated
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.optimizers import StableAdamW, warmup_cosine
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

HARDEST, RISE = 0.9, 1000  # share of positions that count as easy, and steps until it is reached
SCALED = 0.1  # what is left of their gradient
WARM, FINAL, CLIP = 100, 0.1, 0.1  # steps of rising rate, share of the rate at the end, length of the gradient


class Dinomaly(Detector):
    """Loose reconstruction of a frozen transformer behind a noisy bottleneck."""

    paper = "Guo et al., Dinomaly: The Less Is More Philosophy in Unsupervised Anomaly Detection, CVPR 2025, 2405.14325"
    year = 2025
    kind = "reconstruction"
    can = frozenset({"localise"})
    paper_view = {"resize": 448, "crop": 392}
    paper_params = {"backbone": "vit_base_patch14_reg4_dinov2.lvd142m", "layers": (2, 3, 4, 5, 6, 7, 8, 9)}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        width: int = 256,
        blocks: int = 8,
        dropout: float = 0.2,
        steps: int = 5000,
        learning_rate: float = 2e-3,
        batch: int = 16,
        sigma: float = 4.0,
    ) -> None:
        """Choose backbone and decoder, and how long it learns.

        Args:
            backbone: any timm model; with a transformer it is the paper's method
            layers: blocks or layers whose tokens are drawn again, at least two, the earliest first
            weights: a file, auto or none
            width: values of a token, where the backbone is no transformer
            blocks: of the decoder, an even number
            dropout: in the bottleneck (the paper takes 0.4 for its largest dataset)
            steps: of training (the paper takes 10000 for all categories together)
            learning_rate: of StableAdamW with weight decay 1e-4, at its highest
            batch: images per step
            sigma: smoothing of the map within 5 x 5 pixels
        """
        super().__init__()
        if min(width, steps, batch) < 1 or learning_rate <= 0:
            raise BadConfig("width, steps, batch and learning_rate must all be above 0.")
        if blocks < 2 or blocks % 2 or len(layers) < 2:
            raise BadConfig(
                "Dinomaly takes an even number of blocks and at least two layers, to make two groups of each."
            )
        if not 0 <= dropout < 1:
            raise BadConfig(f"dropout is a share from 0 to less than 1, not {dropout}.")
        self.backbone = Backbone(backbone, layers, weights)
        channels = self.backbone.channels
        self.is_transformer = len(set(channels)) == len(set(self.backbone.strides)) == 1
        self.dim = channels[0] if self.is_transformer else width
        self.blocks, self.dropout, self.steps = blocks, dropout, steps
        self.learning_rate, self.batch, self.sigma = learning_rate, batch, sigma
        self.levels = nn.ModuleList() if self.is_transformer else nn.ModuleList([Rescale(1.0) for _ in layers])
        self.turn: Tensor
        self.register_buffer("turn", torch.empty(0) if self.is_transformer else torch.zeros(sum(channels), width))
        self.decoder = _Decoder(self.dim, blocks, dropout)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):  # turn, first weights and dropout alike
            if not self.is_transformer:
                self.turn = nn.init.orthogonal_(torch.empty_like(self.turn, device="cpu")).to(train.device)
                self._learn_levels(train)
            self.decoder = _Decoder(self.dim, self.blocks, self.dropout).to(train.device).train()
            optimizer = StableAdamW(self.decoder.parameters(), self.learning_rate, weight_decay=1e-4)
            cached = FeatureCache(self._groups)
            epochs = -(-self.steps // -(-len(train) // self.batch))
            for number, batch in enumerate(loop(train, epochs=epochs, batch=self.batch, rng=rng)):
                if number == self.steps:
                    break
                share = warmup_cosine(number, self.steps, WARM, FINAL)
                optimizer.param_groups[0]["lr"] = self.learning_rate * share
                groups = cached(batch)
                easy = HARDEST * min(1.0, number / RISE)
                pairs = zip(groups, self._drawn(groups), strict=True)
                step(optimizer, torch.stack([hard_cosine(g, d, easy) for g, d in pairs]).mean(), CLIP)
        self.decoder.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.decoder.eval()
        groups = self._groups(batch)
        size = batch.image.shape[-2:]
        errors = [1 - F.cosine_similarity(g, d) for g, d in zip(groups, self._drawn(groups), strict=True)]
        map_ = torch.stack([upsampled(error, size, sigma=0) for error in errors]).mean(0)
        if self.sigma > 0:
            down, across = (blur_matrix(side, self.sigma, 2, map_) for side in size)
            map_ = down @ map_ @ across.T
        most = map_.flatten(1).topk(max(1, map_[0].numel() // 100), dim=1).values
        return Prediction(most.mean(1), map_)

    def _groups(self, batch: Batch) -> list[Tensor]:
        """Return the mean tokens of the earlier and of the later half of the layers, each (B, D, h, w)."""
        layers = self.backbone(batch)
        if not self.is_transformer:
            levelled = [level(f) for level, f in zip(self.levels, layers, strict=True)]
            split = concatenated(levelled[::-1], "bilinear").split(self.backbone.channels[::-1], 1)[::-1]
            parts = self.turn.split(self.backbone.channels)
            layers = [torch.einsum("bchw,cd->bdhw", f, part) for f, part in zip(split, parts, strict=True)]
        half = len(layers) // 2
        return [torch.stack(group).mean(0) for group in (layers[:half], layers[half:])]

    def _drawn(self, groups: list[Tensor]) -> list[Tensor]:
        """Return the groups (B, D, h, w) as the decoder draws them again from the mean over all layers."""
        count = len(self.backbone.layers)
        early = (count // 2) / count
        mean = early * groups[0] + (1 - early) * groups[1]
        drawn = self.decoder(mean.flatten(2).transpose(1, 2))
        return [d.transpose(1, 2).reshape(mean.shape) for d in drawn]

    def _learn_levels(self, train: Images) -> None:
        cached = FeatureCache(self.backbone)
        for which, level in enumerate(self.levels):
            level.fit(cached(batch)[which] for batch in train.batches(16))


def hard_cosine(wanted: Tensor, drawn: Tensor, easy: float) -> Tensor:
    """Return one minus the cosine of whole maps (B, C, h, w), mean over images.

    Of all positions of the batch the share ``easy`` with the smallest error passes only a tenth of its gradient.
    """
    with torch.no_grad():
        error = 1 - F.cosine_similarity(wanted, drawn)  # (B, h, w)
        hardest = max(1, int(error.numel() * (1 - easy)))
        limit = error.flatten().topk(hardest).values[-1]
        passed = torch.where(error < limit, SCALED, 1.0)[:, None]
    drawn = drawn * passed + (drawn * (1 - passed)).detach()  # the same values, another gradient
    return 1 - F.cosine_similarity(wanted.flatten(1), drawn.flatten(1)).mean()


class _Decoder(nn.Module):
    """The noisy bottleneck and the blocks behind it: from tokens (B, N, D) to two groups of such tokens."""

    def __init__(self, dim: int, blocks: int, dropout: float) -> None:
        super().__init__()
        noise = nn.Dropout(dropout)
        self.bottleneck = nn.Sequential(
            noise, nn.Linear(dim, 4 * dim), nn.GELU(), noise, nn.Linear(4 * dim, dim), noise
        )
        heads = next(h for h in range(max(1, dim // 64), 0, -1) if dim % h == 0)
        self.blocks = nn.ModuleList([LinearBlock(dim, heads) for _ in range(blocks)])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Return what the last half of the blocks say, in the mean, and then what the first half does."""
        tokens = self.bottleneck(tokens)
        said = []
        for block in self.blocks:
            tokens = block(tokens)
            said.append(tokens)
        half = len(said) // 2
        return [torch.stack(group).mean(0) for group in (said[half:], said[:half])]
