"""Mutual scoring of unlabelled images; a patch's score is its mean distance to the most similar images.

Paper: Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the
    Unlabeled Images", ICLR 2024, 2401.16753. LNAMD: patches of four blocks are averaged over neighbourhoods of degree
    1, 3 and 5 and scaled to unit length. MSM: a patch's score is the mean of the lowest 30 % of its distances to the
    nearest patch of each other image. RsCIN: the image score, the maximum of the map, is averaged with those of the
    most similar images.
Differs:
    * The other images are those of the training set, which may be unlabelled and may hold defects. So each test image
      is scored alone. Fitted on the test images themselves this is the paper's setting: an image whose features equal
      those of a reference is taken to be this reference, which is then left out.
    * The similarity of whole images is that of their mean patches. The paper takes CLIP's class token.
    * Image scores are not scaled to 0 … 1 before they are averaged, which does not change their order.
    * CLIP's activation is GELU, as in the authors' code at 518 pixels, although OpenAI trained with QuickGELU.
    * The default backbone is the convolutional network that comes with IADBE.
    * Blocks are counted from 0, as in the authors' configuration, whose code adds 1 to compare with a count from 1:
      5, 11, 17 and 23 are the 6th, 12th, 18th and 24th of ViT-L.
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
from iadbe.layers.features.region import average_pooled, image_score, masked
from iadbe.layers.memory_bank.nearest_neighbours import squared_distances
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16
CHUNK = 2**20  # distances at a time: they fit a CPU's cache
CHUNK_CUDA = 2**26
EXPORTED_BLOCK = 8  # images that an exported graph compares with at a time
SAME_IMAGE = 1e-6  # mean squared difference of normalised features below which two images are the same


class MuSc(Detector):
    """Mutual scoring of unlabelled images (LNAMD, MSM and RsCIN)."""

    paper = "Li et al., MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation, ICLR 2024, arXiv 2401.16753"
    year = 2024
    kind = "mutual scoring"
    can = frozenset({"localise", "transductive"})
    renamed_tensors = {"whole": "image_features"}
    paper_view = {"resize": 518}
    paper_params = {"backbone": "vit_large_patch14_clip_336.openai", "layers": (5, 11, 17, 23)}

    scores: Tensor
    image_features: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        degrees: tuple[int, ...] = (1, 3, 5),
        share: float = 0.3,
        windows: tuple[int, ...] = (1, 2, 3),
        sigma: float = 0.0,
    ) -> None:
        """Set up an unfitted detector.

        Args:
            backbone: any timm model; the paper uses vision transformers
            layers: layers, or transformer blocks, whose maps are averaged
            weights: a file, auto or none
            degrees: aggregation degrees r: sides of the neighbourhoods over which features are averaged, odd
            share: share of the images, the nearest to a patch, whose mean distance is its score
            windows: numbers of images, itself included, over which an image score is averaged
            sigma: standard deviation of the Gaussian blur of the map, in pixels
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
        self.register_buffer("image_features", torch.empty(0))  # (N, C), unit length: each reference as one vector
        self.register_buffer("scores", torch.empty(0))  # (N,): score of each reference by the others

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        found, regions, size = [], [], (0, 0)
        for batch in train.batches(BATCH):
            found.append(self._features(batch))
            regions.append(batch.region)
            size = batch.image.shape[-2:]
            progress.report("features", sum(len(f[0]) for f in found), len(train))
        *references, self.image_features = (torch.cat(parts) for parts in zip(*found, strict=True))
        for number, reference in enumerate(references):
            setattr(self, f"references{number}", reference)
        scores = []
        for start, region in zip(range(0, len(train), BATCH), regions, strict=True):
            layers = [r[start : start + BATCH] for r in references]
            scores.append(image_score(self._map(layers, size, region), region))
            progress.report("fit", min(start + BATCH, len(train)), len(train))
        self.scores = torch.cat(scores)

    def predict(self, batch: Batch) -> Prediction:
        *layers, image_features = self._features(batch)
        map_ = self._map(layers, batch.image.shape[-2:], batch.region)
        similarity = (image_features @ self.image_features.T).masked_fill(self._is_reference(layers), -torch.inf)
        score = image_score(map_, batch.region)
        return Prediction(rescored(score, similarity, self.scores, self.windows), map_)

    def _features(self, batch: Batch) -> list[Tensor]:
        """Return each layer, layer-normalised over the whole image, and the image features (B, C) of unit length.

        Positions that do not count have zeros, and :func:`nearest_in_each` leaves these out.
        """
        layers = self.backbone(batch)
        whole = F.normalize(average_pooled(layers[-1], batch.region), dim=1)
        return [*(masked(F.layer_norm(f, f.shape[1:]), batch.region) for f in layers), whole]

    def _map(self, layers: list[Tensor], size: tuple[int, int], region: Tensor | None) -> Tensor:
        """Return the anomaly maps (B, H, W) of images by the references: the mean over layers and degrees."""
        itself, maps = self._is_reference(layers), []
        for number, layer in enumerate(layers):
            references = getattr(self, f"references{number}")
            for degree in self.degrees:
                distance = nearest_in_each(_patches(layer, degree), _patches(references, degree))  # (B, P, N)
                scores = lowest_mean(distance, itself, self.share)
                maps.append(upsampled(scores.view(-1, *layer.shape[-2:]), size, self.sigma, region=region))
        return torch.stack(maps).mean(0)

    def _is_reference(self, layers: list[Tensor]) -> Tensor:
        """Return which images are which references: (B, N), bool."""
        references = getattr(self, f"references{len(layers) - 1}").flatten(1)
        rows = layers[-1].flatten(1)
        return squared_distances(rows, references, EXPORTED_BLOCK) < SAME_IMAGE * rows.shape[1]


def nearest_in_each(queries: Tensor, references: Tensor) -> Tensor:
    """Return the distance of each patch of (B, P, C) to its nearest patch in each image of (N, R, C): (B, P, N).

    Patches that are zero throughout are no patches of an image.
    """
    nothing = ~references.any(2)
    centre = references.mean((0, 1))  # squared norms around it lose the fewest digits
    queries, references = queries - centre, references - centre
    halves = (references.square().sum(2) / 2).masked_fill(nothing, torch.inf)  # (N, R)
    rows, count = queries.flatten(0, 1), references.shape[1]
    chunk = CHUNK_CUDA if rows.is_cuda else CHUNK
    images_at_a_time = max(1, min(len(references), chunk // (256 * count)))
    step = max(1, chunk // (images_at_a_time * count))
    if torch.compiler.is_exporting():  # a graph cannot fill a table whose size follows from the number of images
        blocks = zip(references.split(images_at_a_time), halves.split(images_at_a_time), strict=True)
        parts = [(rows @ r.flatten(0, 1).T - h.flatten()).unflatten(1, (-1, count)).amax(2) for r, h in blocks]
        return _to_distances(rows, torch.cat(parts, 1)).unflatten(0, queries.shape[:2])
    found = rows.new_empty(len(rows), len(references))
    for start in range(0, len(references), images_at_a_time):
        table = references[start : start + images_at_a_time].flatten(0, 1).T  # (C, n * R)
        half = halves[start : start + images_at_a_time].flatten()
        for place, part in enumerate(rows.split(step)):
            most = torch.addmm(half, part, table, beta=-1).view(len(part), -1, count).amax(2)  # max of xc - |c|² / 2
            found[place * step : place * step + len(part), start : start + images_at_a_time] = most
    return _to_distances(rows, found).view(*queries.shape[:2], -1)


def _to_distances(rows: Tensor, most: Tensor) -> Tensor:
    """Return distances (n, N) of rows x (n, C), given the largest xc - |c|² / 2 of each image's patches c."""
    square = rows.square().sum(1, keepdim=True) - 2 * most
    return square.clamp(min=0).sqrt()


def lowest_mean(distance: Tensor, itself: Tensor, share: float) -> Tensor:
    """Return the mean of the lowest ``share`` of distances (B, P, N) along N, at least one: (B, P).

    References that are the scored image ``itself`` (B, N) are left out, unless there are no others.
    """
    itself = itself & ~itself.all(1, keepdim=True)
    others = (~itself).sum(1)  # (B,)
    kept = (others * share + 1e-6).long().clamp(min=1)
    ordered = distance.masked_fill(itself[:, None], torch.inf).sort(2).values
    chosen = torch.arange(distance.shape[2], device=distance.device) < kept[:, None, None]
    return ordered.where(chosen, 0).sum(2) / kept[:, None]


def rescored(score: Tensor, similarity: Tensor, reference_scores: Tensor, windows: tuple[int, ...]) -> Tensor:
    """Average each score (B,) with those of the most similar references (N,), weighted by similarity (B, N): (B,).

    The score itself has weight 1. A similarity of -inf leaves a reference out.
    """
    weight, index = similarity.sort(1, descending=True)
    weight = weight.clamp(min=0)
    averages = []
    for window in windows:
        if window < 2:  # OpenVINO does not sum over nothing
            averages.append(score)
            continue
        near = weight[:, : window - 1]
        averages.append((score + (near * reference_scores[index[:, : window - 1]]).sum(1)) / (1 + near.sum(1)))
    return torch.stack(averages).mean(0)


def _patches(layer: Tensor, degree: int) -> Tensor:
    """Average (B, C, h, w) over ``degree`` x ``degree`` neighbours and return unit-length rows: (B, h * w, C)."""
    return F.normalize(neighbourhood_mean(layer, degree).flatten(2).mT, dim=2)
