"""A memory bank of graph features (a patch and its most similar patches); the score is the distance to the nearest one.

Paper: Xie et al., "Pushing the Limits of Few-shot Anomaly Detection in Industry Vision: GraphCore", ICLR 2023,
    2301.12082, with the max-relative graph convolution of Vision GNN (Han et al., NeurIPS 2022). Each patch is a node,
    connected to the most similar patches of its image. Its feature is its own vector and the largest difference to
    its neighbours, which does not change under rotation of the image. The bank is a coreset of these features.
Differs:
    * By default, node features come from any backbone and pass one graph convolution without trained weights. The paper
      takes the layers of a trained Vision GNN as they are: ``backbone=vig_ti_224_gelu layers=3,4 weights=FILE``, with
      the blocks of the authors' benchmark code. There the coreset keeps 0.1 % of all patches.
    * Such a backbone is not invariant to rotation. So the bank also holds the training images rotated by multiples of
      90°, as the paper does for PatchCore, if there are at most ``max_rotated``.
    * The coreset is greedy and exact. Distances and the map are as in PatchCore; the authors' code has squared ones.
Numbers: MVTec AD, image AUROC for 1, 2, 4, 8 images to train on: 5.8, 4.1, 3.4, 1.6 points more than the best before
    it (the paper's abstract). Measured here with ResNet-18 at 256, all 209 images: bottle 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import concatenated, flattened, neighbourhood_mean
from iadbe.layers.features.region import at_grid, image_score
from iadbe.layers.features.views import rotated
from iadbe.layers.memory_bank.nearest_neighbours import CachedIndex
from iadbe.layers.memory_bank.patch_bank import PatchBank
from iadbe.networks.backbone import Backbone
from iadbe.networks.vision_gnn import VisionGNN
from iadbe.types import Prediction

CHUNK = 2**23  # values of the largest temporary tensor


class GraphCore(Detector):
    """Memory bank of graph features for few-shot anomaly detection."""

    paper = "Xie et al., Pushing the Limits of Few-shot Anomaly Detection: GraphCore, ICLR 2023, arXiv 2301.12082"
    year = 2023
    kind = "memory bank"
    can = frozenset({"localise", "merge"})
    renamed = {"turns": "rotations", "few": "max_rotated"}
    paper_view = {"resize": 224}
    paper_params = {"backbone": "vig_ti_224_gelu.in1k", "layers": [3, 4], "rotations": 1}

    bank: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        edges: int = 9,
        rotations: int = 4,
        max_rotated: int = 16,
        coreset: float = 0.1,
        projection: int = 128,
        sigma: float = 4.0,
    ) -> None:
        """Set up an unfitted detector.

        Args:
            backbone: any timm model, or a Vision GNN (vig_ti_224_gelu, pvig_ti_224_gelu, also s, b and m), whose own
                graph convolutions replace the one without trained weights
            layers: layers whose features are stacked, on the grid of the first; blocks of a Vision GNN, from 0
            weights: a file, auto or none
            edges: number of neighbours of each node in the graph, itself included
            rotations: number of rotations by 90° in which training images enter the bank, 1 (unrotated) to 4
            max_rotated: maximum number of training images that are rotated; more enter the bank unrotated
            coreset: share of the patches of all rotations that the bank keeps, above 0 and up to 1
            projection: dimension of the random projection for the coreset; 0: no projection
            sigma: standard deviation of the Gaussian blur of the map, in pixels
        """
        super().__init__()
        if not 0 < coreset <= 1 or not 1 <= rotations <= 4 or edges < 1:
            raise BadConfig(
                f"coreset {coreset} is to be in (0, 1], rotations {rotations} from 1 to 4, edges {edges} 1 or more."
            )
        self.backbone = Backbone(backbone, layers, weights)
        self.edges, self.rotations, self.max_rotated, self.share = edges, rotations, max_rotated, coreset
        self.projection, self.sigma = projection, sigma
        self.trained_graph = isinstance(self.backbone.network, VisionGNN)
        self.register_buffer("bank", torch.empty(0))  # (M, 2 * D)
        self._index = CachedIndex()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        turns = range(self.rotations if len(train) <= self.max_rotated else 1)
        views = [partial(rotated, degrees=90 * k) for k in turns]
        patches = PatchBank(train, self._nodes, self.projection, generator(rng), views)
        self.bank = patches.take(patches.coreset(self.share, rng).sort().values)

    def predict(self, batch: Batch) -> Prediction:
        features = self._nodes(batch)  # (B, 2 * D, h, w)
        distance, _ = self._index(self.bank).nearest(flattened(features))
        scores = distance.view(-1, *features.shape[2:])
        return Prediction(
            image_score(scores, batch.region),
            upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region),
        )

    def merge(self, others: Sequence[Self]) -> None:
        """Concatenate the clients' banks."""
        self.bank = torch.cat([o.bank for o in others])

    def _nodes(self, batch: Batch) -> Tensor:
        """Return the graph feature of each position: (B, D, h, w) of a Vision GNN, else (B, 2 * D, h, w)."""
        if self.trained_graph:
            return concatenated(self.backbone(batch), "nearest")
        features = concatenated([neighbourhood_mean(f) for f in self.backbone(batch)], "bilinear")
        counts = at_grid(batch.region, (features.shape[2], features.shape[3]))
        return max_relative(features, self.edges, counts)


def max_relative(features: Tensor, edges: int, counts: Tensor | None = None) -> Tensor:
    """Concatenate each node x_i (B, D, h, w) with max_j (x_j - x_i) over its neighbours j: (B, 2 * D, h, w).

    Neighbours are the ``edges`` positions of the image with the largest cosine, as in Vision GNN. A node is its own
    neighbour, so that the maximum is at least 0.
    """
    images, dim, height, width = features.shape
    nodes = features.flatten(2).mT  # (B, N, D)
    directions = F.normalize(nodes, dim=2)
    known = torch.ones(images, height * width, dtype=torch.bool, device=features.device)
    known = known if counts is None else counts.flatten(1)
    if torch.compiler.is_exporting():
        relative = _max_of_neighbours(nodes, directions, known, edges) - nodes
        return torch.cat([nodes, relative], 2).mT.reshape(images, 2 * dim, height, width)
    edges = min(edges, int(known.sum(1).min()))
    step = max(1, CHUNK // (edges * dim + height * width))  # nodes at a time
    largest = []
    for image, direction, own in zip(nodes, directions, known, strict=True):
        parts = direction.split(step)
        alike = ((part @ direction.T).masked_fill(~own, -torch.inf) for part in parts)
        neighbours = [some.topk(edges, 1).indices for some in alike]
        largest.append(
            torch.cat([torch.maximum(image[n].amax(1), o) for n, o in zip(neighbours, image.split(step), strict=True)])
        )
    relative = torch.stack(largest) - nodes
    return torch.cat([nodes, relative], 2).mT.reshape(images, 2 * dim, height, width)


def _max_of_neighbours(nodes: Tensor, directions: Tensor, known: Tensor, edges: int) -> Tensor:
    """Return the maximum (B, N, D) of each node and its neighbours, one neighbour at a time, which bounds memory.

    ``known`` (B, N) is which nodes can be neighbours, of nodes and their ``directions`` (B, N, D).
    """
    alike = (directions @ directions.mT).masked_fill(~known[:, None], -torch.inf)  # (B, N, N)
    cosine, which = alike.topk(min(edges, nodes.shape[1]), 2)
    largest = nodes
    for number in range(which.shape[2]):
        other = nodes.gather(1, which[:, :, number, None].expand_as(nodes))
        largest = torch.where(cosine[:, :, number, None] > -torch.inf, torch.maximum(largest, other), largest)
    return largest
