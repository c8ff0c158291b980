"""Images judge one another: a patch is anomalous if even the images that resemble it most have nothing like it.

Paper: Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the
    Unlabeled Images", ICLR 2024, 2401.16753. Patches of four blocks, averaged over 1, 3 and 5 neighbours a side
    (LNAMD), each of length 1; a patch's distance to its nearest in every other image, of which the mean of the lowest
    30 % is its score (MSM); an image's score, the largest of its map, is averaged with those of the images that
    resemble it most (RsCIN).
Differs: the images that judge are those of the training set, which may be unlabelled and may hold defects, so that
    every test image is scored alone. Fitted on the test images themselves this is the paper's setting: an image
    with the features of a reference is taken to be that reference and has no say about itself. What resembles a whole
    image is told by the mean of its patches instead of CLIP's class token. The scores are not scaled to 0 … 1 before
    they are averaged, which changes no order. The default backbone is the convolutional one that comes with IADBE.
Numbers: CLIP ViT-L/14-336 at 518, fitted on the test images: image AUROC 97.8, pixel AUROC 97.3, AUPRO 93.8 on
    MVTec AD; 92.8, 98.8 and 92.7 on VisA. Measured here with layer 3 of the embedded network at 256, fitted on every
    second test image of bottle: image AUROC 100 on these.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import neighbourhood_mean
from iadbe.layers.features.views import on_grid
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16
CHUNK = 2**20  # distances at a time: little enough for a cache
CHUNK_CUDA = 2**26
SAME = 1e-6  # mean squared difference of features of variance 1, below which two images are one


class MuSc(Detector):
    """Mutual scoring of unlabelled images."""

    paper = "Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation, ICLR 2024, arXiv 2401.16753"
    year = 2024
    kind = "mutual scoring"
    can = frozenset({"localise", "transductive"})
    paper_view = {"resize": 518}
    paper_params = {"backbone": "vit_large_patch14_clip_336.openai", "layers": (5, 11, 17, 23)}

    scores: Tensor
    whole: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        degrees: tuple[int, ...] = (1, 3, 5),
        share: float = 0.3,
        windows: tuple[int, ...] = (1, 2, 3),
        sigma: float = 0.0,
    ) -> None:
        """Choose features, and how scores are averaged.

        Args:
            backbone: any timm model; vision transformers are what the paper is about
            layers: layers, or blocks, whose scores are averaged
            weights: a file, auto or none
            degrees: sides, in patches, of the squares that features are averaged over; odd
            share: of the images, those nearest to a patch, whose mean distance is its score
            windows: numbers of images, the judged one among them, that an image's score is averaged over
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if not degrees or any(d < 1 or d % 2 == 0 for d in degrees):
            raise BadConfig(f"degrees are odd numbers of patches, at least 1, not {list(degrees)}.")
        if not 0 < share <= 1:
            raise BadConfig(f"share is above 0 and up to 1, not {share}.")
        if not windows or min(windows) < 1:
            raise BadConfig(f"windows are numbers of images, at least 1, not {list(windows)}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.degrees, self.share, self.windows, self.sigma = degrees, share, windows, sigma
        for number in range(len(layers)):
            self.register_buffer(f"references{number}", torch.empty(0))  # (N, C, h, w)
        self.register_buffer("whole", torch.empty(0))  # (N, C) of length 1: each reference as one vector
        self.register_buffer("scores", torch.empty(0))  # (N,): what the others say of each reference

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        found, size = [], (0, 0)
        for batch in train.batches(BATCH):
            found.append(self._features(batch))
            size = batch.image.shape[-2:]
            progress.report("features", sum(len(f[0]) for f in found), len(train))
        *references, self.whole = (torch.cat(parts) for parts in zip(*found, strict=True))
        for number, reference in enumerate(references):
            setattr(self, f"references{number}", reference)
        scores = []
        for start in range(0, len(train), BATCH):
            scores.append(self._map([r[start : start + BATCH] for r in references], size).amax((1, 2)))
            progress.report("fit", min(start + BATCH, len(train)), len(train))
        self.scores = torch.cat(scores)

    def predict(self, batch: Batch) -> Prediction:
        *layers, whole = self._features(batch)
        found = self._map(layers, batch.image.shape[-2:])
        alike = (whole @ self.whole.T).masked_fill(self._same(layers), -torch.inf)  # (B, N)
        return Prediction(rescored(found.amax((1, 2)), alike, self.scores, self.windows), found)

    def _features(self, batch: Batch) -> list[Tensor]:
        """Return each layer, of mean 0 and variance 1 in every image, and each image as a vector of length 1."""
        layers = self.backbone(on_grid(batch, self.backbone))
        return [*(F.layer_norm(f, f.shape[1:]) for f in layers), F.normalize(layers[-1].mean((2, 3)), dim=1)]

    def _map(self, layers: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the scores of images (B, H, W) by what the references say: the mean over layers and degrees."""
        same, maps = self._same(layers), []
        for number, layer in enumerate(layers):
            references = getattr(self, f"references{number}")
            for degree in self.degrees:
                distance = nearest_in_each(_patches(layer, degree), _patches(references, degree))  # (B, P, N)
                scores = lowest_mean(distance, same, self.share)
                maps.append(upsampled(scores.view(-1, *layer.shape[-2:]), size, self.sigma))
        return torch.stack(maps).mean(0)

    def _same(self, layers: list[Tensor]) -> Tensor:
        """Say which images are which references: (B, N), bool."""
        known = getattr(self, f"references{len(layers) - 1}").flatten(1)
        rows = layers[-1].flatten(1)
        apart = torch.cdist(rows, known, compute_mode="donot_use_mm_for_euclid_dist")
        return apart.square() < SAME * rows.shape[1]


def nearest_in_each(queries: Tensor, references: Tensor) -> Tensor:
    """Return how far each patch of (B, P, C) is from its nearest patch in each image of (N, R, C): (B, P, N)."""
    centre = references.mean((0, 1))  # around which squared norms cancel least
    queries, references = queries - centre, references - centre
    halves = references.square().sum(2) / 2  # (N, R)
    rows, count = queries.flatten(0, 1), references.shape[1]
    found = rows.new_empty(len(rows), len(references))
    chunk = CHUNK_CUDA if rows.is_cuda else CHUNK
    few = max(1, min(len(references), chunk // (256 * count)))
    step = max(1, chunk // (few * count))
    for start in range(0, len(references), few):
        table = references[start : start + few].flatten(0, 1).T  # (C, n * R)
        half = halves[start : start + few].flatten()
        for place, part in enumerate(rows.split(step)):
            most = torch.addmm(half, part, table, beta=-1).view(len(part), -1, count).amax(2)  # xc - |c|² / 2
            found[place * step : place * step + len(part), start : start + few] = most
    square = rows.square().sum(1, keepdim=True) - 2 * found
    return square.clamp(min=0).sqrt().view(*queries.shape[:2], -1)


def lowest_mean(distance: Tensor, same: Tensor, share: float) -> Tensor:
    """Return the mean of the lowest ``share`` of (B, P, N) along N, at least one: (B, P).

    Which images are ``same`` (B, N) as the one that is judged has no say, unless nobody else is there.
    """
    same = same & ~same.all(1, keepdim=True)
    others = (~same).sum(1)  # (B,)
    keep = (others * share + 1e-6).long().clamp(min=1)
    ordered = distance.masked_fill(same[:, None], torch.inf).sort(2).values
    chosen = torch.arange(distance.shape[2], device=distance.device) < keep[:, None, None]
    return ordered.where(chosen, 0).sum(2) / keep[:, None]


def rescored(score: Tensor, alike: Tensor, known: Tensor, windows: tuple[int, ...]) -> Tensor:
    """Average each score (B,) with the ``known`` ones (N,) of the most similar images, weighed by likeness (B, N).

    An image is like itself with weight 1. A likeness of -inf marks an image that is not to be asked.
    """
    weight, index = alike.sort(1, descending=True)
    weight = weight.clamp(min=0)
    averages = []
    for window in windows:
        near = weight[:, : window - 1]
        averages.append((score + (near * known[index[:, : window - 1]]).sum(1)) / (1 + near.sum(1)))
    return torch.stack(averages).mean(0)


def _patches(layer: Tensor, degree: int) -> Tensor:
    """Average (B, C, h, w) over squares, and return rows of length 1: (B, h * w, C)."""
    return F.normalize(neighbourhood_mean(layer, degree).flatten(2).mT, dim=2)
