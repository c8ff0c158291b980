"""A memory bank conditioned on position and neighbourhood; the score is the distance to the nearest likely patch.

Paper: Bae et al., "PNI: Industrial Anomaly Detection using Position and Neighborhood Information", ICCV 2023,
    arXiv:2211.12634. The position prior p(c | x) is a histogram of the bank patches c found around position x in
    training. The conditional p(c | neighbourhood) comes from a network that sees the 9 x 9 neighbourhood without its
    centre and classifies the patch into one of 2048 clusters. Bank patches of a probability above τ, half of
    one divided by the size of the bank, are candidates. A patch's score is the mean of its distances to the nearest
    candidate of both. A second network may refine the map (``refine``), whose maximum then is the image's score.
Differs:
    * The network is narrower and sees random projections of each neighbour (``width``, ``context``).
    * It is trained on the shuffled positions of ``batch`` images at a time. Its last epoch counts. The authors take the
      best epoch on a tenth held out.
    * There are no more clusters than bank patches.
    * Patches at the border are treated like others. The authors keep a second coreset without them.
    * Layers are concatenated as they are. ``embedding=1024`` pools each patch to 1024 values as in the paper.
    * The neighbourhood leaves out its centre, as the paper says. The authors' code keeps the centre and leaves out the
      position to its right.
    * Without refinement, an image's score is its largest distance before smoothing. The authors' code has two scores,
      the largest distance off the border and the largest value of the smoothed map.
    * The greedy coreset is exact.
    * The refinement network is trained here for each task, on synthetic defects in its training images, and is off by
      default. The authors publish one network for all tasks, without a training recipe.
Numbers: MVTec AD, WRN101-2, 480: image AUROC 99.6, pixel AUROC 99.0, AUPRO 96.1, refined (the authors' README).
    Measured here with ResNet-18 at 256, width 64, 2 epochs, not refined: bottle 100.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.perceptron import perceptron
from iadbe.layers.blocks.refiner import Refiner, refinement_loss
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.neighbourhoods import neighbourhoods
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.region import at_grid, counted_places, image_score, masked
from iadbe.layers.features.row_chunks import row_chunks
from iadbe.layers.memory_bank.conditional import masked_nearest_distance, position_prior
from iadbe.layers.memory_bank.nearest_neighbours import NeighbourIndex
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.textures import TextureSource
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

CHUNK = 2**24  # values of the largest temporary
POSITIONS = 2048  # per step of the neighbourhood network
TEMPERATURE = 2.0  # of its softmax
REFINED = 8  # images per step of the refinement network


class PNI(Detector):
    """Position and neighbourhood information."""

    paper = "Bae et al., PNI: Industrial AD using Position and Neighborhood Information, ICCV 2023, arXiv 2211.12634"
    year = 2023
    version = 2  # 2: threshold by the size of the bank, image score of the refined map
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
    renamed = {"least": "threshold"}
    renamed_tensors = {"home": "cluster_of", "usual": "position_candidates"}

    bank: Tensor
    clusters: Tensor
    cluster_of: Tensor
    position_candidates: Tensor
    directions: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
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
        threshold: float = 0.5,
        embedding: int = 0,
        projection: int = 128,
        sigma: float = 4.0,
        refine: float = 0.0,
        steps: int = 5000,
        textures: str = "",
    ) -> None:
        """Choose backbone, memory bank and networks.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the first
            weights: a file, auto or none
            coreset: share of the training patches in the memory bank, in (0, 1]
            clusters: maximum number of classes of the neighbourhood network
            reach: positions of a neighbourhood to each side
            context: dimensions of each neighbour's random projection (0: none)
            width: hidden units of the neighbourhood network
            depth: its number of linear layers, at least 2
            epochs: its passes over the training images; the learning rate is divided by 10 at each third
            learning_rate: initial, of Adam
            batch: images whose positions are shuffled together
            threshold: τ times the size of the bank; bank patches of a probability above τ are candidates
            embedding: values per patch after adaptive average pooling (0: the layers as they are, over 5 x 5 positions)
            projection: dimensions of the random projection for the coreset (0: none)
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
            refine: weight of the refined map in [0, 1]; 0: no refinement network
            steps: training steps of the refinement network
            textures: a folder of images that fill its synthetic defects; "": generated textures
        """
        super().__init__()
        if not 0 < coreset <= 1 or not 0 <= refine <= 1 or learning_rate <= 0 or depth < 2:
            raise BadConfig("coreset is in (0, 1], refine in [0, 1], depth 2 or more, learning_rate above 0.")
        if min(clusters, reach, width, epochs, batch, steps) < 1:
            raise BadConfig("clusters, reach, width, epochs, batch and steps must be at least 1.")
        self.backbone = Backbone(backbone, layers, weights)
        self.share, self.max_clusters, self.reach, self.width, self.depth = coreset, clusters, reach, width, depth
        self.epochs, self.learning_rate, self.batch, self.threshold = epochs, learning_rate, batch, threshold
        self.projection, self.sigma, self.refine, self.steps = projection, sigma, refine, steps
        self.textures, self.embedding = TextureSource(textures), embedding
        dim = embedding or sum(self.backbone.channels)
        self.context = context if 0 < context < dim else dim
        self._register()
        self.network: nn.Module = nn.Identity()  # made once the number of clusters is known
        self.refiner: nn.Module = Refiner() if refine else nn.Identity()

    def _register(self) -> None:
        """Register empty buffers for what is learnt."""
        self.register_buffer("directions", torch.empty(0))  # (D, context), or empty
        self.register_buffer("bank", torch.empty(0))  # (M, D)
        self.register_buffer("clusters", torch.empty(0))  # (K, D): cluster centres, the first bank patches
        self.register_buffer("cluster_of", torch.empty(0, dtype=torch.long))  # (M,): each bank patch's cluster
        self.register_buffer("position_candidates", torch.empty(0, dtype=torch.bool))  # (h * w, M): p(c | x) > τ
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))  # map values that the refiner sees as 0 and 1

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        cached = FeatureCache(lambda batch: [self._patches(batch)])
        source = generator(rng)
        patches = PatchBank(train, lambda batch: cached(batch)[0], self.projection, source)
        self.bank = patches.take(patches.coreset(self.share, rng))
        self.clusters = self.bank[: self.max_clusters].clone()  # bank patches, so that no cluster is empty
        self.cluster_of = NeighbourIndex(self.clusters).nearest(self.bank)[1][:, 0]
        dim = self.bank.shape[1]
        directions = torch.randn(dim, self.context, generator=source) / self.context**0.5
        self.directions = (directions if self.context < dim else torch.empty(0)).to(train.device)
        prior = position_prior(self._nearest(train, cached), len(self.bank), self.reach)
        self.position_candidates = (prior > self.threshold / len(self.bank)).contiguous()
        self._learn_neighbourhoods(train, cached, rng)
        if self.refine:
            self._learn_refinement(train, rng)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        scores = self._scores(self._patches(batch), batch.region)
        map_ = upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region)
        if self.refine:
            plain = self._scaled(map_)
            map_ = (1 - self.refine) * plain + self.refine * self.refiner.eval()(batch.image, plain)
            return Prediction(image_score(map_, batch.region), map_)  # as in the authors' evaluation of refined maps
        return Prediction(image_score(scores, batch.region), map_)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load fitted tensors; the network gets as many outputs as they have clusters."""
        self.network = self._untrained(len(tensors["clusters"])).eval()
        super().load_tensors(tensors)

    def _patches(self, batch: Batch) -> Tensor:
        """Return the patch features: (B, D, h, w)."""
        return patch_embedding(self.backbone(batch), self.embedding, 5)

    def _scores(self, features: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the mean distance (B, h, w) to the nearest candidates by position and by neighbourhood."""
        images, _, height, width = features.shape
        known = len(self.position_candidates)
        if height * width != known:
            raise BadConfig(f"PNI was fitted on {known} positions, not {height} x {width}. Use the view of the fit.")
        rows, padded = flattened(features), self._padded(features, region)
        step = max(1, CHUNK // (len(self.bank) + self.context * ((2 * self.reach + 1) ** 2 - 1)))
        scores = []
        for part in row_chunks(torch.arange(rows.shape[0], device=rows.device), step):
            logits = self.network(neighbourhoods(padded, part, self.reach))
            likely = (logits / TEMPERATURE).softmax(1) > self.threshold / len(self.bank)  # (n, K)
            by_neighbourhood = masked_nearest_distance(rows[part], self.bank, likely[:, self.cluster_of])
            candidates = self.position_candidates[part % (height * width)]
            by_position = masked_nearest_distance(rows[part], self.bank, candidates)
            scores.append((by_neighbourhood + by_position) / 2)
        return torch.cat(scores).view(images, height, width)

    @torch.no_grad()
    def _map(self, batch: Batch) -> Tensor:
        """Return the maps (B, H, W) before refinement."""
        return upsampled(
            self._scores(self._patches(batch), batch.region), batch.image.shape[-2:], self.sigma, region=batch.region
        )

    def _nearest(self, train: Images, cached: FeatureCache) -> Iterator[Tensor]:
        """Yield, for batches of training images, the indices (B, h, w) of the nearest bank patches; -1: not counted."""
        index = NeighbourIndex(self.bank)
        for batch in train.batches(16):
            features = cached(batch)[0]
            found = index.nearest(flattened(features))[1].view(len(batch), *features.shape[2:])
            counts = at_grid(batch.region, (features.shape[2], features.shape[3]))
            yield found if counts is None else found.masked_fill(~counts, -1)

    def _padded(self, features: Tensor, region: Tensor | None = None) -> Tensor:
        """Return projected features, (B, h + 2 r, w + 2 r, context), zeros around images and where nothing counts."""
        projected = masked(features, region).permute(0, 2, 3, 1)
        projected = projected @ self.directions if self.directions.numel() else projected
        return F.pad(projected, (0, 0, *[self.reach] * 4))

    def _untrained(self, clusters: int) -> nn.Sequential:
        """Make the neighbourhood network, with random weights."""
        inputs = self.context * ((2 * self.reach + 1) ** 2 - 1)
        return perceptron([inputs, *[self.width] * (self.depth - 1)], clusters)

    def _learn_neighbourhoods(self, train: Images, cached: FeatureCache, rng: np.random.Generator) -> None:
        """Train the network to classify patches into clusters from their neighbourhoods."""
        with seeded(rng):
            network = self._untrained(len(self.clusters)).to(train.device).train()
            self.network = network
            optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
            batches = -(-len(train) // self.batch)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, -(-self.epochs // 3)) * batches, 0.1)
            index, source = NeighbourIndex(self.clusters), generator(rng)
            state = (optimizer, schedule, source)
            for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=state):
                features = cached(batch)[0]
                padded, cluster = self._padded(features, batch.region), index.nearest(flattened(features))[1][:, 0]
                places = counted_places(features, batch.region)
                order = torch.randperm(len(places), generator=source).to(cluster.device)
                for part in places[order].split(POSITIONS):
                    if len(part) > 1:  # batch norm needs at least two
                        logits = network(neighbourhoods(padded, part, self.reach))
                        step(optimizer, F.cross_entropy(logits, cluster[part]))
                schedule.step()
        network.eval()

    def _learn_refinement(self, train: Images, rng: np.random.Generator) -> None:
        """Train the refinement network to segment synthetic defects from image and map."""
        with seeded(rng):
            self.refiner = Refiner().to(train.device).train()
        source = generator(rng)
        plain = torch.cat([self._map(batch) for batch in train.batches(16)])
        optimizer = torch.optim.Adam(self.refiner.parameters(), 1e-4)
        self.scale = plain.new_zeros(0)  # the first batch decides
        for batch in loop(train, steps=self.steps, batch=REFINED, rng=rng, state=(optimizer, source)):
            mask = perlin_masks(len(batch), batch.image.shape[2], batch.image.shape[3], source).to(batch.image.device)
            image = blended(batch.image, mask, self.textures(batch.image, source), source)
            map_ = self._map(Batch(image, region=batch.region))
            if not len(self.scale):
                self.scale = torch.stack([plain.amin(), torch.maximum(map_.amax(), plain.amax())])
            refined = masked(self.refiner(image, self._scaled(map_)), batch.region)
            step(optimizer, refinement_loss(refined, masked(mask[:, 0].float(), batch.region)))
        self.refiner.eval()

    def _scaled(self, map_: Tensor) -> Tensor:
        """Return the map in the range that the refinement network was trained in."""
        return (map_ - self.scale[0]) / (self.scale[1] - self.scale[0]).clamp(min=1e-6)
