"""A network learns to tell images from images with pasted patches; a Gaussian on its embedding of good ones scores.

Paper: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021, 2104.04015. A
    ResNet-18 and a projection head are trained to classify normal images, images with a pasted patch and, in the 3-way
    variant, images with a pasted scar. After that a Gaussian is fitted to the average-pooled features of the training
    images; the score is the Mahalanobis distance. The map is either Grad-CAM's (Selvaraju et al., ICCV 2017) of that
    distance, or the network is trained on crops of 64 x 64 pixels: then every crop with a stride of 4 pixels gets a
    score, Gaussians of the crop's size spread them over the pixels (Liznerski et al., ICLR 2021), and the highest one
    is the image's.
Differs:
    * The default network is the embedded EfficientNet, pretrained, with fewer steps. The paper trains a ResNet-18 from
      scratch (its table of pretrained networks has an EfficientNet-B4). A vision transformer embeds by the
      mean of its patch tokens.
    * The covariance is that of Ledoit and Wolf, on embeddings of unit length, as in the unofficial code (Runinho).
      The frozen first steps of a pretrained network and the widths of the head come from there too.
    * Random translation: the image is cropped to 90 to 100 % of its sides and resized. Its amount is not in the paper.
    * Scars shrink with the image: their sides are for 256 pixels.
Numbers: MVTec AD, 256, 3-way from scratch: image AUROC 95.2 (mean of five; five models together 96.1), pixel AUROC of
    the patch model 96.0; pretrained EfficientNet-B4, image AUROC 96.6.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.encoder import Encoder
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import at_grid, average_pooled, image_score, joined, moved_alike
from iadbe.layers.features.row_chunks import row_chunks
from iadbe.layers.features.views import warped_images
from iadbe.layers.statistics.shrinkage import ShrunkGaussian
from iadbe.layers.synthetic.cutpaste import cut_paste, cut_paste_scar
from iadbe.layers.synthetic.photometric import colour_jitter
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.types import Prediction

JITTER = 0.1  # strength of the colour jitter of the whole image
CROP = 0.9  # smallest side of the random crop, as a share of the image's
SIDE = 256  # pixels of an image in which scars have their full size
CROPS = 256  # crops of the patch model that are embedded at a time


class CutPaste(Detector):
    """Classifier of pasted patches and scars, then a Gaussian on its embedding."""

    paper = (
        "Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR 2021, 2104.04015"
    )
    year = 2021
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    whole_image = "the patch model (patch=32) learns from crops of whole images; its Gaussian is of crops that count"
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet18.tv_in1k", "weights": "none", "steps": 65536, "frozen": 0}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        weights: str = "auto",
        variant: Literal["3-way", "binary", "scar"] = "3-way",
        patch: int = 0,
        stride: int = 4,
        width: int = 512,
        depth: int = 2,
        steps: int = 2048,
        learning_rate: float = 0.03,
        batch: int = 64,
        frozen: int = 20,
        sigma: float = 4.0,
    ) -> None:
        """Choose the network, the task and the map.

        Args:
            backbone: any timm model, for example resnet18.tv_in1k or vit_base_patch16_224.augreg2_in21k_ft_in1k
            weights: with which training starts: a file, auto or none (from scratch)
            variant: 3-way tells normal, patch and scar apart; binary normal and patch; scar normal and scar
            patch: side in pixels of the crops of the patch model; 0: whole images, with Grad-CAM's map
            stride: between crops of the patch model, in pixels
            width: units of each hidden layer of the projection head
            depth: hidden layers of that width in the head; one of a quarter of it follows
            steps: number of training steps
            learning_rate: of SGD with momentum 0.9 and weight decay 3e-5, at the start of half a cosine
            batch: normal images per step; each has one pasted copy per other class
            frozen: steps in which a pretrained network is not trained yet, only the head
            sigma: standard deviation of the Gaussian that smooths Grad-CAM's map, in pixels
        """
        super().__init__()
        if variant not in ("3-way", "binary", "scar"):
            raise BadConfig(f"variant is 3-way, binary or scar, not {variant!r}.")
        if min(stride, width, steps, batch) < 1 or min(depth, frozen) < 0 or learning_rate <= 0:
            raise BadConfig(
                "stride, width, steps, batch and learning_rate must be above 0, depth and frozen at least 0."
            )
        if patch and patch < 16:
            raise BadConfig(f"patch is 0 or at least 16 pixels, not {patch}.")
        self.backbone, self.initial, self.variant = backbone, weights, variant
        self.patch, self.stride, self.sigma = patch, stride, sigma
        self.width, self.depth, self.steps, self.batch = width, depth, steps, batch
        self.learning_rate, self.frozen = learning_rate, 0 if weights == "none" else frozen
        self._initialise()

    def weights(self) -> str:
        return self.encoder.description

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        self._train(train, rng)
        self.eval()
        with torch.no_grad():
            self.gaussian.fit(torch.cat([self._embedded(batch.image, batch.region) for batch in train.batches(16)]))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        if self._crops(batch.image.shape[-2:]) is not None:
            return self._from_crops(batch)
        features = self.encoder(batch.image)
        pooled = average_pooled(features, batch.region)
        map_ = grad_cam(features, self.gaussian, batch.region)
        score = self.gaussian.distance(F.normalize(pooled))
        return Prediction(score, upsampled(map_, batch.image.shape[-2:], self.sigma, region=batch.region))

    def _initialise(self) -> None:
        """Make the network that training starts from; torch's generator draws what is not pretrained."""
        self.encoder = Encoder(self.backbone, self.initial)
        layers: list[nn.Module] = []
        inputs = self.encoder.channels
        for units in [self.width] * self.depth + [max(1, self.width // 4)]:
            layers += [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(inplace=True)]
            inputs = units
        self.head = nn.Sequential(*layers, nn.Linear(inputs, 3 if self.variant == "3-way" else 2))
        self.gaussian = ShrunkGaussian()

    def _train(self, train: Images, rng: np.random.Generator) -> None:
        """Train network and head to classify what was pasted."""
        source = generator(rng)
        optimizer = torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9, weight_decay=3e-5)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        self.train()
        batches = loop(train, steps=self.steps, batch=self.batch, rng=rng, state=(optimizer, cosine, source))
        for batch in batches:
            image, region = self._augmented(batch, source)
            classes = self._pasted(image, source)
            if self.patch:
                region = None  # crops are smaller than images
            frozen = cosine.last_epoch < self.frozen
            with torch.set_grad_enabled(not frozen):
                counts = joined(*((some, region) for some in classes))
                embedding = average_pooled(self.encoder(torch.cat(classes)), counts)
            truth = torch.arange(len(classes), device=embedding.device).repeat_interleave(len(batch))
            step(optimizer, F.cross_entropy(self.head(embedding), truth))
            cosine.step()

    def _augmented(self, batch: Batch, source: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Crop, resize and jitter images; return them (B, 3, H, W) and their region."""
        drawn = torch.rand(3, len(batch), generator=source, device=source.device).to(batch.image.device)
        share = CROP + (1 - CROP) * drawn[0]
        zero = torch.zeros_like(share)
        across, down = ((2 * d - 1) * (1 - share) for d in drawn[1:])
        rows = [torch.stack([share, zero, across], 1), torch.stack([zero, share, down], 1)]
        matrix = torch.stack(rows, 1)
        image, region = moved_alike(lambda x: warped_images(x, matrix), batch.image, batch.region)
        return colour_jitter(image, source, JITTER), region

    def _pasted(self, image: Tensor, source: torch.Generator) -> list[Tensor]:
        """Return the classes: normal images (B, 3, H, W), then those with a patch, those with a scar."""
        scale = min(image.shape[-2:]) / SIDE
        if (side := self._crops(image.shape[-2:])) is not None:
            image = random_crops(image, side, source)
        patched = [cut_paste(image, source)[0]] if self.variant != "scar" else []
        scarred = [cut_paste_scar(image, source, scale=scale)[0]] if self.variant != "binary" else []
        return [image, *patched, *scarred]

    def _crops(self, size: tuple[int, ...]) -> int | None:
        """Return the side of the patch model's crops in images of a size (H, W); None: the model sees whole images."""
        return min(self.patch, *size) if self.patch else None

    def _embedded(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the embeddings (N, D) of images (B, 3, H, W), of unit length; of all crops in the patch model.

        ``region`` (B, H, W) is averaged over alone, and only crops are embedded of which half counts.
        """
        if (side := self._crops(image.shape[-2:])) is not None:
            crops = all_crops(image, side, self.stride)
            counts = at_grid(region, (crops.shape[1], crops.shape[2]))
            image, region = (crops.flatten(0, 2) if counts is None else crops[counts]), None
        images = row_chunks(image, CROPS)
        regions = [None] * len(images) if region is None else row_chunks(region, CROPS)
        parts = zip(images, regions, strict=True)
        return torch.cat([F.normalize(average_pooled(self.encoder(part), counts)) for part, counts in parts])

    def _from_crops(self, batch: Batch) -> Prediction:
        """Score every crop; Gaussians of the crop's size spread the scores over the pixels."""
        image = batch.image
        side = min(self.patch, *image.shape[-2:])
        rows, columns = (1 + (size - side) // self.stride for size in image.shape[-2:])
        scores = self.gaussian.distance(self._embedded(image)).view(-1, rows, columns)
        return Prediction(image_score(scores, batch.region), spread(scores, image.shape[-2:], side, self.stride))


def grad_cam(features: Tensor, gaussian: ShrunkGaussian, region: Tensor | None = None) -> Tensor:
    """Return Grad-CAM's map (B, h, w) of the Mahalanobis distance of the normalised mean of features (B, C, h, w).

    A channel's weight is the mean of the gradient of the distance over its positions, and negative sums are set to 0.
    After an average pooling the gradient is the same at all positions: that with respect to the pooled value over their
    number.
    """
    pooled = average_pooled(features, region)
    length = pooled.norm(dim=1, keepdim=True).clamp(min=1e-12)
    unit = pooled / length
    gradient = gaussian.gradient(unit)
    gradient = (gradient - (gradient * unit).sum(1, keepdim=True) * unit) / length  # through the normalisation
    weight = gradient / (features.shape[2] * features.shape[3])
    return (weight[:, :, None, None] * features).sum(1).relu()


def random_crops(image: Tensor, side: int, source: torch.Generator) -> Tensor:
    """Return a crop (B, 3, side, side) from each image (B, 3, H, W)."""
    height, width = image.shape[-2:]
    drawn = torch.rand(2, len(image), generator=source, device=source.device).tolist()
    corners = [(int(y * (height - side + 1)), int(x * (width - side + 1))) for y, x in zip(*drawn, strict=True)]
    return torch.stack([i[:, y : y + side, x : x + side] for i, (y, x) in zip(image, corners, strict=True)])


def all_crops(image: Tensor, side: int, stride: int) -> Tensor:
    """Return all crops of images (B, 3, H, W) with a stride: (B, rows, columns, 3, side, side)."""
    return image.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)


def spread(scores: Tensor, size: tuple[int, ...], side: int, stride: int) -> Tensor:
    """Return scores of crops (B, rows, columns) as a map (B, H, W), by a Gaussian around the middle of each crop.

    Its standard deviation is 0.3 (side / 2 - 1.5) + 0.8 pixels, as in Liznerski et al. Here the map is the weighted
    mean of the scores, so that pixels at the border, which fewer crops contain, are no lower.
    """
    weights, sigma = [], 0.3 * (side / 2 - 1.5) + 0.8
    for pixels, crops in zip(size, scores.shape[1:], strict=True):
        middle = torch.arange(crops, device=scores.device) * stride + side / 2
        place = torch.arange(pixels, device=scores.device) + 0.5
        weight = torch.exp(-0.5 * ((place[:, None] - middle) / sigma) ** 2)
        weights.append(weight / weight.sum(1, keepdim=True).clamp(min=1e-30))
    return weights[0] @ scores @ weights[1].T
