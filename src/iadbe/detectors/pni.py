"""A patch is compared with those remembered patches only that are to be expected there and among such neighbours.

Paper: Bae et al., "PNI: Industrial Anomaly Detection using Position and Neighborhood Information", ICCV 2023,
    2211.12634. What is normal at a position is a histogram of which remembered patches came up there in training; what
    is normal between neighbours is told by a network that sees the 9 x 9 neighbourhood without its middle and names
    one of 2048 clusters. A patch's score is its distance to the nearest remembered patch that is likely enough, the
    mean of both views. A second network may refine the map (``refine``).
Differs: the network is narrower and sees few values of each neighbour (``width``, ``context``); it learns from the
    positions of ``batch`` images at a time, mixed, and its last epoch counts, not the best on a tenth held out; there
    are no more clusters than remembered patches; patches at the border are remembered and scored as others are (the
    authors keep a second coreset without them); layers are stacked as they are (``embedding=1024`` averages to 1024
    values, over 3 x 3 positions instead of 5 x 5); the coreset is greedy and exact. The refining network is learnt
    here, for each task, from defects drawn into its training images, and by default left out (the authors' is one
    network for all tasks, published without the recipe).
Numbers: MVTec AD, WRN101-2, 480: image AUROC 99.6, pixel AUROC 99.0, AUPRO 96.1, refined (the authors' README).
    Measured here with ResNet-18 at 256, width 64, 2 epochs, not refined: bottle 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.refiner import Refiner, refinement_loss
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.features.patches import concatenated, flattened, neighbourhood_mean
from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.textures import TextureSource
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

CHUNK = 2**24  # numbers of the largest temporary
POSITIONS = 2048  # per step of the network that knows neighbourhoods
TEMPERATURE = 2.0  # by which its answers are softened
REFINED = 8  # images per step of the refining network


class PNI(Detector):
    """Memory bank, conditioned on position and neighbourhood."""

    paper = "Bae et al., PNI: Industrial AD using Position and Neighborhood Information, ICCV 2023, arXiv 2211.12634"
    year = 2023
    kind = "memory bank"
    can = frozenset({"localise"})
    paper_view = {"resize": 512, "crop": 480}
    paper_params = {
        "backbone": "wide_resnet101_2.tv_in1k",
        "embedding": 1024,
        "width": 2048,
        "context": 0,
        "sigma": 8.0,
        "refine": 0.1,
    }

    bank: Tensor
    clusters: Tensor
    home: Tensor
    usual: Tensor
    directions: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        coreset: float = 0.01,
        clusters: int = 2048,
        reach: int = 4,
        context: int = 32,
        width: int = 256,
        depth: int = 10,
        epochs: int = 15,
        learning_rate: float = 1e-3,
        batch: int = 8,
        least: float = 0.5,
        embedding: int = 0,
        projection: int = 128,
        sigma: float = 4.0,
        refine: float = 0.0,
        steps: int = 5000,
        textures: str = "",
    ) -> None:
        """Choose backbone, bank, and the networks.

        Args:
            backbone: any timm model
            layers: layers whose features are stacked, on the grid of the first
            weights: a file, auto or none
            coreset: share of the training patches that the bank keeps, above 0 and up to 1
            clusters: kinds of patches that the network tells apart, at most
            reach: how many positions a neighbourhood goes to each side
            context: values that are seen of each neighbour, along random directions (0: all)
            width: of the network that knows neighbourhoods
            depth: its number of linear layers, at least 2
            epochs: how often it is shown every training image; its learning rate falls tenfold at each third
            learning_rate: of Adam, to begin with
            batch: images whose positions are mixed
            least: probability, as a multiple of equal chances, from which a remembered patch is to be expected
            embedding: values per patch after adaptive average pooling (0: the layers as they are, over 5 x 5 positions)
            projection: dimensions in which the coreset is chosen (0: all)
            sigma: smoothing of the map, pixels
            refine: weight of the refined map, from 0 (none is made) to 1
            steps: of the refining network
            textures: a folder of images, which fill the defects that it learns from; "": they are drawn
        """
        super().__init__()
        if not 0 < coreset <= 1 or not 0 <= refine <= 1 or learning_rate <= 0 or depth < 2:
            raise BadConfig("coreset is in (0, 1], refine in [0, 1], depth 2 or more, learning_rate above 0.")
        if min(clusters, reach, width, epochs, batch, steps) < 1:
            raise BadConfig("clusters, reach, width, epochs, batch and steps must be at least 1.")
        self.backbone = Backbone(backbone, layers, weights)
        self.share, self.most, self.reach, self.width, self.depth = coreset, clusters, reach, width, depth
        self.epochs, self.learning_rate, self.batch, self.least = epochs, learning_rate, batch, least
        self.projection, self.sigma, self.refine, self.steps = projection, sigma, refine, steps
        self.textures, self.embedding = TextureSource(textures), embedding
        dim = embedding or sum(self.backbone.channels)
        self.context = context if 0 < context < dim else dim
        self._register()
        self.network: nn.Module = nn.Identity()  # made when the number of clusters is known
        self.refiner: nn.Module = Refiner() if refine else nn.Identity()

    def _register(self) -> None:
        """Make room for what will be learnt."""
        self.register_buffer("directions", torch.empty(0))  # (D, context), or empty
        self.register_buffer("bank", torch.empty(0))  # (M, D)
        self.register_buffer("clusters", torch.empty(0))  # (K, D)
        self.register_buffer("home", torch.empty(0, dtype=torch.long))  # (M,): each bank patch's cluster
        self.register_buffer("usual", torch.empty(0, dtype=torch.bool))  # (h * w, M): what is expected where
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))  # map values that the refining network sees as 0 and 1

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        cached = FeatureCache(lambda batch: [self._patches(batch)])
        source = generator(rng)
        found = PatchBank(train, lambda batch: cached(batch)[0], self.projection, source)
        self.bank = found.take(found.coreset(self.share, rng))
        self.clusters = self.bank[: self.most].clone()  # so that none is without a remembered patch
        self.home = NeighbourIndex(self.clusters).nearest(self.bank)[1][:, 0]
        dim = self.bank.shape[1]
        drawn = torch.randn(dim, self.context, generator=source) / self.context**0.5
        self.directions = (drawn if self.context < dim else torch.empty(0)).to(train.device)
        self.usual = self._positions(train, cached)
        self._learn(train, cached, rng)
        if self.refine:
            self._learn_to_refine(train, rng)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        scores = self._scores(self._patches(batch))
        map_ = upsampled(scores, batch.image.shape[-2:], self.sigma)
        if self.refine:
            plain = self._scaled(map_)
            map_ = (1 - self.refine) * plain + self.refine * self.refiner.eval()(batch.image, plain)
        return Prediction(scores.amax((1, 2)), map_)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what another instance has learnt, whose network tells as many clusters as it found."""
        self.network = self._untrained(len(tensors["clusters"])).eval()
        super().load_tensors(tensors)

    def _patches(self, batch: Batch) -> Tensor:
        """Return one vector per position: (B, D, h, w)."""
        layers = self.backbone(batch)
        if self.embedding:
            return patch_embedding(layers, self.embedding)
        return concatenated([neighbourhood_mean(f, 5) for f in layers], "bilinear")

    def _scores(self, features: Tensor) -> Tensor:
        """Return the distances (B, h, w) to the nearest patches that are expected, in the mean of both views."""
        images, _, height, width = features.shape
        if height * width != len(self.usual):
            raise BadConfig(f"PNI knows {len(self.usual)} positions, not {height} x {width}. Use the view of the fit.")
        rows, padded = flattened(features), self._padded(features)
        step = max(1, CHUNK // (len(self.bank) + self.context * ((2 * self.reach + 1) ** 2 - 1)))
        scores = []
        for part in torch.arange(len(rows), device=rows.device).split(step):
            likely = (self.network(self._neighbours(padded, part)) / TEMPERATURE).softmax(1)
            near = likely > self.least / len(self.clusters)
            between = _expected(rows[part], self.bank, near[:, self.home])
            there = _expected(rows[part], self.bank, self.usual[part % (height * width)])
            scores.append((between + there) / 2)
        return torch.cat(scores).view(images, height, width)

    @torch.no_grad()
    def _map(self, batch: Batch) -> Tensor:
        """Return the maps (B, H, W) before they are refined."""
        return upsampled(self._scores(self._patches(batch)), batch.image.shape[-2:], self.sigma)

    def _positions(self, train: Images, cached: FeatureCache) -> Tensor:
        """Return what is expected where, (h * w, M): what came up often enough in each position's neighbourhood."""
        bank, size = NeighbourIndex(self.bank), len(self.bank)
        counts = torch.zeros(0, device=train.device)
        height = width = 0
        for batch in train.batches(16):
            features = cached(batch)[0]
            height, width = features.shape[2:]
            hit = bank.nearest(flattened(features))[1].view(len(batch), height * width)
            place = torch.arange(height * width, device=hit.device) * size + hit
            found = place.flatten().bincount(minlength=height * width * size)
            counts = found if not len(counts) else counts + found
        maps = counts.view(height, width, size).permute(2, 0, 1).float()
        side = 2 * self.reach + 1
        summed = [F.avg_pool2d(m, side, stride=1, padding=self.reach) * side**2 for m in maps.split(256)]
        share = torch.cat(summed)
        return (share / share.sum(0) > self.least / size).flatten(1).T.contiguous()

    def _padded(self, features: Tensor) -> Tensor:
        """Return what neighbours are seen by, with zeros around each image: (B, h + 2 r, w + 2 r, context)."""
        shown = features.permute(0, 2, 3, 1)
        shown = shown @ self.directions if self.directions.numel() else shown
        return F.pad(shown, (0, 0, *[self.reach] * 4))

    def _neighbours(self, padded: Tensor, which: Tensor) -> Tensor:
        """Return the neighbourhoods, without their middles, of positions numbered image after image: (n, ...)."""
        side, row = 2 * self.reach + 1, padded.shape[2]
        height, width = padded.shape[1] - side + 1, row - side + 1
        image, place = which // (height * width), which % (height * width)
        corner = image * padded.shape[1] * row + place // width * row + place % width
        steps = torch.arange(side, device=which.device)
        around = (steps[:, None] * row + steps).flatten()
        around = torch.cat([around[: side * side // 2], around[side * side // 2 + 1 :]])
        return padded.flatten(0, 2)[corner[:, None] + around].flatten(1)

    def _untrained(self, kinds: int) -> nn.Sequential:
        """Make the network that knows neighbourhoods, with random weights."""
        sizes = [self.context * ((2 * self.reach + 1) ** 2 - 1), *[self.width] * (self.depth - 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(0.5)]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], kinds))

    def _learn(self, train: Images, cached: FeatureCache, rng: np.random.Generator) -> None:
        """Learn which cluster a patch belongs to from its neighbours."""
        with seeded(rng):
            network = self._untrained(len(self.clusters)).to(train.device).train()
            self.network = network
            optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
            batches = -(-len(train) // self.batch)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, -(-self.epochs // 3)) * batches, 0.1)
            kinds, source = NeighbourIndex(self.clusters), generator(rng)
            for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
                features = cached(batch)[0]
                padded, truth = self._padded(features), kinds.nearest(flattened(features))[1][:, 0]
                for some in torch.randperm(len(truth), generator=source).to(truth.device).split(POSITIONS):
                    if len(some) > 1:  # a batch norm cannot learn from one
                        step(optimizer, F.cross_entropy(network(self._neighbours(padded, some)), truth[some]))
                schedule.step()
        network.eval()

    def _learn_to_refine(self, train: Images, rng: np.random.Generator) -> None:
        """Learn to tell drawn defects from the map that they make."""
        with seeded(rng):
            self.refiner = Refiner().to(train.device).train()
        source = generator(rng)
        plain = torch.cat([self._map(batch) for batch in train.batches(16)])
        optimizer = torch.optim.Adam(self.refiner.parameters(), 1e-4)
        batches = loop(train, epochs=-(-self.steps * REFINED // len(train)), batch=REFINED, rng=rng)
        for number, batch in zip(range(self.steps), batches, strict=False):
            mask = perlin_masks(len(batch), batch.image.shape[2], batch.image.shape[3], source).to(batch.image.device)
            image = blended(batch.image, mask, self.textures(batch.image, source), source)
            map_ = self._map(Batch(image))
            if number == 0:
                self.scale = torch.stack([plain.amin(), torch.maximum(map_.amax(), plain.amax())])
            step(optimizer, refinement_loss(self.refiner(image, self._scaled(map_)), mask[:, 0].float()))
        self.refiner.eval()

    def _scaled(self, map_: Tensor) -> Tensor:
        return (map_ - self.scale[0]) / (self.scale[1] - self.scale[0]).clamp(min=1e-6)


def _expected(rows: Tensor, bank: Tensor, view: Tensor) -> Tensor:
    """Return the distance (n,) of each row (n, D) to the nearest patch of the bank (M, D) that the view (n, M) has.

    Where it has none, the distance to the farthest patch counts.
    """
    middle = bank.mean(0)  # around which squared norms cancel least
    table = torch.addmm((bank - middle).square().sum(1), rows - middle, (bank - middle).T, alpha=-2)
    nearest = table.masked_fill(~view, torch.inf).argmin(1)
    hit = torch.where(view.any(1), nearest, table.argmax(1))
    return (rows - bank[hit]).square().sum(1).sqrt()
