"""A kernel density of the features of regions; a region is as anomalous as such features are rare.

Paper: Adey et al., "Region Based Anomaly Detection With Real-Time Training and Analysis", ICMLA 2019: regions proposed
    by Faster R-CNN (COCO, ResNet-50 FPN), a feature per region, 16 principal components, Gaussian kernel density.
Differs: features are averaged from a layer of the backbone by RoI-align, instead of those of a network trained on
    Visual Genome; the score is the negative logarithm of the density, of which the paper's probability is a monotonic
    function. Where the weights of Faster R-CNN cannot be had, a grid of squares of three sizes stands in for the
    proposals; the result says which it was. An image without a proposal is one region. An image's score is its
    largest; a pixel has the largest of the regions over it, or the image's lowest where there is none.
Numbers: none on images of parts; the paper is about surveillance video. Proposals as in anomalib's port: confidence
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
from iadbe.layers.features.views import on_grid
from iadbe.layers.statistics.kde import KernelDensity
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16
MOST_POINTS = 40_000  # of more training regions so many are drawn
SIZES = (1 / 8, 1 / 4, 1 / 2)  # of the squares of the grid, as shares of the image; they overlap by half
CELLS = 4  # a region is read at CELLS x CELLS places, and averaged


class RKDE(Detector):
    """Region-based kernel density estimation."""

    paper = "Adey et al., Region Based Anomaly Detection With Real-Time Training and Analysis, ICMLA 2019"
    year = 2019
    kind = "density"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"proposals": "rcnn"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layer: int = 3,
        weights: str = "auto",
        proposals: Literal["auto", "grid", "rcnn"] = "auto",
        proposal_weights: str = "",
        components: int = 16,
        confidence: float = 0.001,
        overlap: float = 0.3,
        regions: int = 100,
        least: int = 25,
    ) -> None:
        """Choose regions and features.

        Args:
            backbone: any timm model
            layer: the layer whose values are averaged over a region
            weights: a file, auto or none
            proposals: rcnn, a grid, or auto: rcnn where its weights are on this machine
            proposal_weights: a file with torchvision's fasterrcnn_resnet50_fpn; without one, torch's cache is looked at
            components: principal components that the density is estimated in, at most
            confidence: of a proposal, at least
            overlap: of two proposals, as intersection over union, above which only the more confident one is kept
            regions: proposals per image, at most
            least: width and height of a proposal, in pixels
        """
        super().__init__()
        if components < 1 or regions < 1:
            raise BadConfig(f"components {components} and regions {regions} must be at least 1.")
        if proposals not in ("auto", "grid", "rcnn"):
            raise BadConfig(f"proposals is auto, grid or rcnn, not {proposals!r}.")
        self.backbone = Backbone(backbone, (layer,), weights)
        self.density = KernelDensity()
        self.components, self.confidence, self.overlap = components, confidence, overlap
        self.regions, self.least = regions, least
        self.proposer: nn.Module | None = None
        if proposals == "rcnn" and weights == "none" and not proposal_weights:
            self.proposer = _proposer(confidence)  # its weights are random, or will be loaded
        elif proposals != "grid" and (state := _found(proposal_weights, weights, proposals)) is not None:
            self.proposer = _proposer(confidence)
            try:
                self.proposer.load_state_dict(state)
            except RuntimeError as error:
                what = proposal_weights or "the file in torch's cache"
                raise BadConfig(f"{what} does not hold weights of torchvision's fasterrcnn_resnet50_fpn.") from error

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        found, done = [], 0
        for batch in train.batches(BATCH):
            found.append(self._features(batch, self._proposed(batch)))
            done += len(batch)
            progress.report("features", done, len(train))
        rows = torch.cat(found)
        if len(rows) > MOST_POINTS:
            drawn = np.sort(rng.choice(len(rows), MOST_POINTS, replace=False))
            rows = rows[torch.from_numpy(drawn).to(rows.device)]
        self.density.fit(rows, self.components)

    def predict(self, batch: Batch) -> Prediction:
        boxes = self._proposed(batch)
        rareness = self.density.rareness(self._features(batch, boxes)).split([len(b) for b in boxes])
        size = batch.image.shape[-2:]
        maps = torch.stack([painted(*pair, size) for pair in zip(boxes, rareness, strict=True)])
        return Prediction(torch.stack([r.max() for r in rareness]), maps)

    def weights(self) -> str:
        """Return the backbone's fingerprint and source, and where the regions come from."""
        if self.proposer is None:
            return f"{super().weights()}; regions: grid"
        digest = hashlib.blake2b(digest_size=8)
        for _, value in sorted(self.proposer.state_dict().items()):
            digest.update(value.detach().cpu().numpy().tobytes())
        return f"{super().weights()}; regions: Faster R-CNN {digest.hexdigest()}"

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what was learnt, and the proposals it was learnt on, whatever is on this machine."""
        had = any(name.startswith("proposer.") for name in tensors)
        self.proposer = (self.proposer or _proposer(self.confidence)) if had else None
        super().load_tensors(tensors)

    def _proposed(self, batch: Batch) -> list[Tensor]:
        """Return each image's regions (R, 4): left, top, right and bottom, in pixels."""
        height, width = batch.image.shape[-2:]
        if self.proposer is None:
            return [grid(height, width).to(batch.image.device)] * len(batch)
        whole = batch.image.new_tensor([[0, 0, width, height]])
        with torch.no_grad():
            found = [self.proposer.eval()([image])[0] for image in batch.image]
        chosen = []
        for regions in found:
            boxes, scores = regions["boxes"], regions["scores"]
            large = remove_small_boxes(boxes, self.least)
            boxes, scores = boxes[large], scores[large]
            boxes = boxes[nms(boxes, scores, self.overlap)[: self.regions]]
            chosen.append(boxes if len(boxes) else whole)
        return chosen

    def _features(self, batch: Batch, boxes: list[Tensor]) -> Tensor:
        """Return the mean of the layer over each region of each image: (sum of R, C)."""
        layer = self.backbone(on_grid(batch, self.backbone))[0]
        scale = layer.shape[-1] / batch.image.shape[-1]
        return roi_align(layer, boxes, CELLS, scale, sampling_ratio=2, aligned=True).mean((2, 3))


def grid(height: int, width: int) -> Tensor:
    """Return squares (or, in an image that is none, rectangles) of all sizes that cover the image: (R, 4)."""
    found = []
    for share in SIZES:
        count = round(2 / share) - 1
        top, left = (torch.arange(count) * (side * share / 2) for side in (height, width))
        top, left = (t.flatten() for t in torch.meshgrid(top, left, indexing="ij"))
        found.append(torch.stack([left, top, left + width * share, top + height * share], 1))
    return torch.cat(found)


def painted(boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map (H, W) with the largest score of the regions (R, 4) over each pixel, the lowest where none is."""
    found = scores.new_full(size, float(scores.min()))
    edges = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).long().tolist()
    for place in scores.argsort().tolist():  # the largest last
        left, top, right, bottom = edges[place]
        found[max(0, top) : bottom, max(0, left) : right] = scores[place]
    return found


def _proposer(confidence: float) -> nn.Module:
    """Make Faster R-CNN whose own suppression is switched off: it would keep regions of different classes apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fasterrcnn_resnet50_fpn(
            weights=None,
            weights_backbone=None,
            box_score_thresh=confidence,
            box_nms_thresh=1.0,
            box_detections_per_img=1000,
        ).requires_grad_(False)


def _found(file: str, weights: str, proposals: str) -> dict[str, Any] | None:
    """Return the weights of Faster R-CNN from a file or torch's cache; None: there are none, and none are needed."""
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
