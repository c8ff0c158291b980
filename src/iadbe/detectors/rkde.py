"""A kernel density estimate of features of image regions; the score is a region's negative log-density.

Paper: Adey et al., "Region Based Anomaly Detection With Real-Time Training and Analysis", ICMLA 2019. Faster R-CNN
    (COCO, ResNet-50 FPN) proposes regions. Each has one feature, reduced to 16 principal components, over which a
    Gaussian kernel density is estimated.
Differs:
    * Features are a layer of the backbone, averaged over the region by RoI-align. The paper's come from a network
      trained on Visual Genome.
    * The score is the negative log-density. The paper's probability is a monotonic function of it.
    * Where the weights of Faster R-CNN cannot be had, a grid of squares of three sizes replaces the proposals. The
      result says which it was.
    * An image without a proposal is one region. An image's score is that of its most anomalous region. A pixel has the
      largest score of the regions over it, or the image's lowest where there is none.
Numbers: none on industrial images; the paper is about surveillance video. Proposals as in anomalib's port: confidence
    0.001, non-maximum suppression 0.3, at most 100 regions of at least 25 pixels. Measured here with the grid and the
    embedded network at 256: bottle, image AUROC 99.9.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, fasterrcnn_resnet50_fpn
from torchvision.ops import nms, remove_small_boxes, roi_align

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig, Missing
from iadbe.layers.features.region import HALF
from iadbe.layers.statistics.kde import KernelDensity
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16
MAX_POINTS = 40_000  # kernels; of more training regions, so many are drawn
SIZES = (1 / 8, 1 / 4, 1 / 2)  # of the grid's squares, as shares of the image's side; they overlap by half
ROI_SIZE = 4  # RoI-align samples ROI_SIZE x ROI_SIZE values per region


class RKDE(Detector):
    """Region-based kernel density estimation."""

    paper = "Adey et al., Region Based Anomaly Detection With Real-Time Training and Analysis, ICMLA 2019"
    year = 2019
    kind = "density"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"proposals": "rcnn"}
    renamed = {"least": "min_size"}
    not_exportable_for = {"proposals": {"rcnn": "Faster R-CNN proposes another number of regions in each image"}}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layer: int = 3,
        weights: str = "auto",
        proposals: Literal["auto", "grid", "rcnn"] = "auto",
        proposal_weights: str = "",
        components: int = 16,
        confidence: float = 0.001,
        overlap: float = 0.3,
        regions: int = 100,
        min_size: int = 25,
    ) -> None:
        """Choose regions and features.

        Args:
            backbone: any timm model
            layer: layer whose features are averaged over a region
            weights: a file, auto or none
            proposals: rcnn, a grid, or auto: rcnn where its weights are on this machine
            proposal_weights: a file with torchvision's fasterrcnn_resnet50_fpn; empty: torch's cache
            components: maximum number of principal components
            confidence: minimum confidence of a proposal
            overlap: intersection over union above which non-maximum suppression drops a proposal
            regions: maximum number of proposals per image
            min_size: minimum width and height of a proposal, in pixels
        """
        super().__init__()
        if components < 1 or regions < 1:
            raise BadConfig(f"components {components} and regions {regions} must be at least 1.")
        if proposals not in ("auto", "grid", "rcnn"):
            raise BadConfig(f"proposals is auto, grid or rcnn, not {proposals!r}.")
        self.backbone = Backbone(backbone, (layer,), weights)
        self.density = KernelDensity()
        self.components, self.confidence, self.overlap = components, confidence, overlap
        self.regions, self.min_size = regions, min_size
        self.proposer: nn.Module | None = None
        if proposals == "rcnn" and weights == "none" and not proposal_weights:
            self.proposer = _proposer(confidence)  # its weights are random, or will be loaded
        elif proposals != "grid" and (state := _rcnn_weights(proposal_weights, weights, proposals)) is not None:
            self.proposer = _proposer(confidence)
            try:
                self.proposer.load_state_dict(state)
            except RuntimeError as error:
                what = proposal_weights or "the file in torch's cache"
                raise BadConfig(f"{what} does not hold weights of torchvision's fasterrcnn_resnet50_fpn.") from error

        if self.proposer is not None:
            self.not_exportable = self.not_exportable_for["proposals"]["rcnn"]

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        features, done = [], 0
        for batch in train.batches(BATCH):
            features.append(self._features(batch, self._proposals(batch)))
            done += len(batch)
            progress.report("features", done, len(train))
        rows = torch.cat(features)
        if len(rows) > MAX_POINTS:
            drawn = np.sort(rng.choice(len(rows), MAX_POINTS, replace=False))
            rows = rows[torch.from_numpy(drawn).to(rows.device)]
        self.density.fit(rows, self.components)

    def predict(self, batch: Batch) -> Prediction:
        if torch.compiler.is_exporting():
            return self._scored_by_grid(batch)
        boxes = self._proposals(batch)
        scores = self.density.negative_log_density(self._features(batch, boxes)).split([len(b) for b in boxes])
        size = batch.image.shape[-2:]
        maps = torch.stack([region_map(*pair, size) for pair in zip(boxes, scores, strict=True)])
        return Prediction(torch.stack([s.max() for s in scores]), maps)

    def weights(self) -> str:
        """Return the backbone's fingerprint and source, and the source of the regions."""
        if self.proposer is None:
            return f"{super().weights()}; regions: grid"
        digest = hashlib.blake2b(digest_size=8)
        for _, value in sorted(self.proposer.state_dict().items()):
            digest.update(value.detach().cpu().numpy().tobytes())
        return f"{super().weights()}; regions: Faster R-CNN {digest.hexdigest()}"

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the fitted tensors, with the proposal network they were fitted on, whatever is on this machine."""
        has_rcnn = any(name.startswith("proposer.") for name in tensors)
        self.proposer = (self.proposer or _proposer(self.confidence)) if has_rcnn else None
        super().load_tensors(tensors)

    def _proposals(self, batch: Batch) -> list[Tensor]:
        """Return each image's regions (R, 4): left, top, right and bottom, in pixels; those half of which counts."""
        boxes = self._all_proposals(batch)
        if batch.region is None:
            return boxes
        shares = roi_align(batch.region[:, None].float(), boxes, ROI_SIZE, sampling_ratio=2, aligned=True).mean(
            (1, 2, 3)
        )
        parts = zip(boxes, shares.split([len(own) for own in boxes]), strict=True)
        return [own[share >= share.max().clamp(max=HALF)] for own, share in parts]

    def _all_proposals(self, batch: Batch) -> list[Tensor]:
        height, width = batch.image.shape[-2:]
        if self.proposer is None:
            return [grid(height, width).to(batch.image.device)] * len(batch)
        whole_image = batch.image.new_tensor([[0, 0, width, height]])
        with torch.no_grad():
            proposed = [self.proposer.eval()([image])[0] for image in batch.image]
        chosen = []
        for regions in proposed:
            boxes, scores = regions["boxes"], regions["scores"]
            large = remove_small_boxes(boxes, self.min_size)
            boxes, scores = boxes[large], scores[large]
            boxes = boxes[nms(boxes, scores, self.overlap)[: self.regions]]
            chosen.append(boxes if len(boxes) else whole_image)
        return chosen

    def _scored_by_grid(self, batch: Batch) -> Prediction:
        """Score the boxes of the grid, the same in all images, by products of matrices, for exported graphs."""
        height, width = batch.image.shape[-2:]
        boxes, layer = grid(height, width).to(batch.image.device), self.backbone(batch)[0]
        rows = box_means(layer, boxes, layer.shape[-1] / width).mT  # (B, R, C)
        score = self.density.negative_log_density(rows.flatten(0, 1)).unflatten(0, (-1, boxes.shape[0]))  # (B, R)
        lowest = score.amin(1)
        if batch.region is not None:
            share = box_means(batch.region[:, None].float(), boxes, 1.0)[:, 0]
            counts = share >= share.amax(1, keepdim=True).clamp(max=HALF)
            lowest = score.masked_fill(~counts, torch.inf).amin(1)
            score = score.masked_fill(~counts, -torch.inf)
        return Prediction(score.amax(1), torch.maximum(grid_map(score, height, width), lowest[:, None, None]))

    def _features(self, batch: Batch, boxes: list[Tensor]) -> Tensor:
        """Return the mean features of all regions of all images, (sum of R, C); ``boxes`` has (R, 4) per image."""
        layer = self.backbone(batch)[0]
        scale = layer.shape[-1] / batch.image.shape[-1]
        return roi_align(layer, boxes, ROI_SIZE, scale, sampling_ratio=2, aligned=True).mean((2, 3))


def grid(height: int, width: int) -> Tensor:
    """Return boxes (R, 4) of all sizes that cover the image; they have its aspect ratio."""
    found = []
    for share in SIZES:
        count = round(2 / share) - 1
        top, left = (torch.arange(count) * (side * share / 2) for side in (height, width))
        top, left = (t.flatten() for t in torch.meshgrid(top, left, indexing="ij"))
        found.append(torch.stack([left, top, left + width * share, top + height * share], 1))
    return torch.cat(found)


def region_map(boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map (H, W) with the largest score of the regions (R, 4) over each pixel, the lowest where none is."""
    found = scores.new_full(size, float(scores.min()))
    edges = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).long().tolist()
    for place in scores.argsort().tolist():  # the largest last
        left, top, right, bottom = edges[place]
        found[max(0, top) : bottom, max(0, left) : right] = scores[place]
    return found


def box_means(maps: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """Return what :func:`roi_align` gives for the same boxes (R, 4) of all images (B, C, h, w), as means: (B, C, R)."""
    samples = (torch.arange(2 * ROI_SIZE, device=maps.device) + 0.5) / (2 * ROI_SIZE)
    weights = []
    for axis, side in ((1, maps.shape[2]), (0, maps.shape[3])):
        first, last = boxes[:, axis, None] * scale - 0.5, boxes[:, axis + 2, None] * scale - 0.5
        place = (first + samples * (last - first)).clamp(0, side - 1)  # (R, samples)
        own = 1 - (torch.arange(side, device=maps.device) - place[:, :, None]).abs()
        weights.append(own.clamp(min=0).mean(1))  # (R, side)
    return ((maps @ weights[1].T) * weights[0].T).sum(2)


def grid_map(scores: Tensor, height: int, width: int) -> Tensor:
    """Return the maps (B, H, W) with the largest score (B, R) of the grid's boxes over each pixel; -inf: none is."""
    maps, start = [], 0
    for share in SIZES:
        count = round(2 / share) - 1
        own = scores[:, start : start + count**2].unflatten(1, (count, count))  # (B, rows, columns)
        start += count**2
        for side in (width, height):  # the last axis becomes one of pixels, and the two change places
            first = torch.arange(count, device=scores.device) * (side * share / 2)
            pixel = torch.arange(side, device=scores.device)
            inside = (pixel >= first.floor()[:, None]) & (pixel < (first + side * share).ceil()[:, None])
            own = own[..., None].masked_fill(~inside, -torch.inf).amax(2).mT  # (B, pixels, others)
        maps.append(own)
    return torch.stack(maps).amax(0)


def _proposer(confidence: float) -> nn.Module:
    """Make Faster R-CNN without its own suppression, which treats each class separately."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            box_score_thresh=confidence,
            box_nms_thresh=1.0,
            box_detections_per_img=1000,
        ).requires_grad_(False)


def _rcnn_weights(file: str, weights: str, proposals: str) -> dict[str, Any] | None:
    """Return the weights of Faster R-CNN from a file or torch's cache; None where a grid is allowed instead."""
    url = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url
    path = Path(file).expanduser() if file else Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file and (weights == "none" or not path.is_file()):
        if proposals == "auto":
            return None
        raise Missing(f"the weights of Faster R-CNN are not at {path}. Get them from {url}, or use proposals=grid.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise BadConfig(f"{path} cannot be read as weights of Faster R-CNN ({type(error).__name__}).") from error
