"""Features registered by learnt spatial transformers, a Gaussian per position; the score is the Mahalanobis distance.

Paper: Huang et al., "Registration based Few-Shot Anomaly Detection", ECCV 2022, arXiv:2207.07361. A spatial transformer
    (STN) of rotation and scale follows each of three layers of ResNet-18. A Siamese encoder and predictor learn that
    the last features of images of one category agree (negative cosine, stop-gradient on one side). Features are
    transformed back, and a Gaussian per position is estimated over 22 augmented copies of each support image.
Differs:
    * The supports of a query come from its own batch, whose features are computed once. The authors' code draws and
      computes them separately.
    * Layers up to the first STN are frozen. ``train_early_layers=true`` trains them, as in the paper.
    * Batch norms of the backbone keep their pretrained statistics, folded into its convolutions.
    * Images are normalised as the backbone was trained.
    * Scale and rotation are multiplied as matrices. The authors' code scales the diagonal only.
    * Copies are made of at most 16 supports.
    * The last epoch counts. The authors' code keeps the best epoch on the test set.
    * ``fit`` learns the registration and estimates the Gaussians on the same images. ``update`` keeps the registration
      and estimates Gaussians of new images. The paper's setting is ``fit`` on other categories, then ``update`` on a
      few images of the target.
    * A category with a single image is paired with an augmented copy of it.
Numbers: MVTec AD, ResNet-18, 224, trained on the other categories, with 2, 4 and 8 images: image AUROC 85.7, 88.2 and
    91.2, pixel AUROC 94.6, 95.8 and 96.7 (means over ten draws). Measured here with 4 bottles and no other category,
    10 epochs, 128: image AUROC 98.1 with the embedded network, 97.9 with ResNet-18.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import HALF, at_grid, image_score
from iadbe.layers.features.views import is_transformer, rotated_images, warped_images
from iadbe.layers.statistics.gaussian import PositionGaussians
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.state import Variables
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16  # images per forward pass without training
MAX_COPIED = 16  # number of supports up to which augmented copies are made


class RegAD(Detector):
    """Feature registration, then a Gaussian per position."""

    paper = "Huang et al., Registration based Few-Shot Anomaly Detection, ECCV 2022, arXiv 2207.07361"
    year = 2022
    kind = "registration"
    can = frozenset({"localise", "meta-learning"})
    whole_image = (
        "the registration is learnt from whole images: it rotates and scales them as a whole; Gaussians are not"
    )
    paper_view = {"resize": 224}
    paper_params = {"backbone": "resnet18.tv_in1k", "train_early_layers": True}
    renamed = {"whole": "train_early_layers"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        epochs: int = 50,
        supports: int = 2,
        learning_rate: float = 1e-4,
        batch: int = 32,
        train_early_layers: bool = False,
        regularisation: float = 0.01,
        sigma: float = 4.0,
    ) -> None:
        """Choose the network and its training.

        Args:
            backbone: any convolutional timm model whose stages are modules; the network is initialised with it
            layers: layers followed by an STN, whose features the Gaussians model
            weights: the backbone's: a file, auto or none
            epochs: passes over the training images as queries
            supports: images of the query's category whose mean feature is the target
            learning_rate: of SGD with momentum 0.9 and cosine decay to 0
            batch: images per step, all of one category
            train_early_layers: train also the layers up to the first STN, which takes twice as long
            regularisation: ε, added to the diagonal of every covariance
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if epochs < 1 or batch < 2 or supports < 1 or learning_rate <= 0:
            raise BadConfig(
                f"epochs {epochs}, supports {supports} and learning_rate {learning_rate} must be above 0, "
                f"and batch {batch} at least 2."
            )
        self.backbone = Backbone(backbone, sorted(set(layers)), weights)
        self.epochs, self.supports, self.learning_rate, self.batch = epochs, supports, learning_rate, batch
        self.train_early_layers, self.sigma = train_early_layers, sigma
        self.gaussians = PositionGaussians(regularisation)
        self.registration = _Registration(self.backbone, self.view.shape, train_early_layers)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.registration = _Registration(self.backbone, train.view.shape, self.train_early_layers).to(train.device)
        self._learn(train, rng)
        self._estimate(train)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        """Keep the registration; estimate the Gaussians of the new images alone."""
        self._estimate(train.normal())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        distance = self.gaussians.distance(self.registration.inverse_transformed(batch.image))
        map_ = upsampled(distance, batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    def _learn(self, train: Images, rng: np.random.Generator) -> None:
        """Train the registration on batches of one category each."""
        network = self.registration.train()
        optimizer = torch.optim.SGD(network.parameters(), self.learning_rate, momentum=0.9)
        members = [[i for i, e in enumerate(train.items) if e.sample.category == name] for name in train.categories]
        parts = sum(-(-len(own) // self.batch) for own in members)  # batches in an epoch

        def order(rng: np.random.Generator) -> list[np.ndarray]:
            chunks = [c for own in members for c in np.array_split(rng.permutation(own), -(-len(own) // self.batch))]
            return [chunks[number] for number in rng.permutation(parts)]

        count, steps = Variables(steps=0), self.epochs * parts
        for batch in loop(train, steps=steps, batch=self.batch, rng=rng, state=(optimizer, count), order=order):
            share = count.steps // parts / self.epochs  # of the epochs that are over
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * share)) / 2
            image = batch.image
            if len(image) == 1:
                image = torch.cat([image, augmented(image, int(rng.integers(1, COPIES)))])
            features = network(image)[0][-1]
            # the supports of query i are the images after it in the batch, whose order is random
            together = min(self.supports, len(image) - 1)
            support = torch.stack([features.roll(-shift, 0) for shift in range(1, together + 1)]).mean(0)
            step(optimizer, registration_loss(network, features, support))
            count.steps += 1
        network.eval()

    @torch.no_grad()
    def _estimate(self, train: Images) -> None:
        """Estimate the Gaussians over the images and, of at most 16 images, their augmented copies."""
        self.gaussians.reset()
        copies = COPIES if len(train) <= MAX_COPIED else 1
        for number, batch in enumerate(train.batches(BATCH)):
            for which in range(copies):
                features = self.registration.inverse_transformed(augmented(batch.image, which))
                region = None if batch.region is None else augmented_region(batch.region, which)
                self.gaussians.add(features, at_grid(region, (features[0].shape[2], features[0].shape[3])))
            progress.report("features", min((number + 1) * BATCH, len(train)), len(train))
        self.gaussians.factorise()


class _Registration(nn.Module):
    """The network with an STN after each layer. Encoder and predictor are for training only."""

    renamed_tensors = {"aligners": "transformers"}

    def __init__(self, backbone: Backbone, size: tuple[int, int], train_early_layers: bool) -> None:
        super().__init__()
        if is_transformer(backbone):
            raise BadConfig(
                f"RegAD transforms feature maps between the stages of a convolutional network; {backbone.name} is none."
            )
        self.layers, channels = backbone.layers, backbone.channels
        self.stages = [str(backbone.network.feature_info[layer]["module"]) for layer in self.layers]
        self.network = copy.deepcopy(backbone.network).requires_grad_(True)
        self.train_early_layers = train_early_layers
        if not train_early_layers:
            for module in self._early_modules():
                module.requires_grad_(False)
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        pairs = zip(channels, backbone.strides, strict=True)
        grids = ((width, [-(-side // stride) for side in size]) for width, stride in pairs)
        self.transformers = nn.ModuleList(_SpatialTransformer(width, *grid) for width, grid in grids)
        width = channels[-1]
        self.encoder = nn.Sequential(*_conv_block(width), *_conv_block(width), nn.Conv2d(width, width, 1, bias=False))
        self.predictor = nn.Sequential(*_conv_block(width), nn.Conv2d(width, width, 1, bias=False))

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return each layer's registered features (B, C, h, w), and the STNs' matrices (B, 2, 2)."""
        matrices: list[Tensor] = []

        def transform(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            matrices.append(self.transformers[len(matrices)](output))
            return warped_images(output, _centred(matrices[-1]))

        handles = [self._stage(name).register_forward_hook(transform) for name in self.stages]
        try:
            normalised = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            features = self.network.forward_intermediates(
                normalised, indices=list(self.layers), intermediates_only=True, stop_early=True
            )
        finally:
            for handle in handles:
                handle.remove()
        return features, matrices

    @torch.no_grad()
    def inverse_transformed(self, image: Tensor) -> list[Tensor]:
        """Return each layer's registered features, transformed back to image coordinates: (B, C, h, w)."""
        features, matrices = self.eval()(image)
        for number in range(len(features)):
            for matrix in reversed(matrices[: number + 1]):
                features[number] = warped_images(features[number], _centred(_inverse(matrix)))
        return features

    def train(self, mode: bool = True) -> _Registration:
        """Keep the batch norms of frozen layers in evaluation mode."""
        super().train(mode)
        for module in () if self.train_early_layers else self._early_modules():
            module.eval()
        return self

    def _early_modules(self) -> Iterator[nn.Module]:
        """Yield the leaf modules up to the end of the first layer."""
        seen = False
        for name, module in self.network.named_modules():
            inside = name == self.stages[0] or name.startswith(self.stages[0] + ".")
            if seen and not inside:
                return
            seen = seen or inside
            if not list(module.children()):
                yield module

    def _stage(self, name: str) -> nn.Module:
        try:
            return self.network.get_submodule(name)
        except AttributeError as error:
            raise BadConfig(
                f"RegAD cannot put an STN into this backbone: its stage {name} is no module of its own."
            ) from error


def _inverse(matrix: Tensor) -> Tensor:
    """Return the inverses of matrices (B, 2, 2)."""
    if not torch.compiler.is_exporting():
        return torch.linalg.inv(matrix)
    (a, b), (c, d) = (row.unbind(1) for row in matrix.unbind(1))  # ONNX inverts none
    rows = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1)
    return rows / (a * d - b * c)[:, None, None]


class _SpatialTransformer(nn.Module):
    """An STN of rotation and scale; before training it is the identity."""

    renamed_tensors = {"look": "localisation", "decide": "regression"}

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.localisation = nn.Sequential(*_downsampling(channels, 64), *_downsampling(64, 16))
        positions = math.ceil(height / 4) * math.ceil(width / 4)
        self.regression = nn.Sequential(nn.Linear(16 * positions, 1024), nn.ReLU(), nn.Linear(1024, 3))
        nn.init.zeros_(self.regression[2].weight)
        with torch.no_grad():
            self.regression[2].bias.copy_(torch.tensor([0.0, 1.0, 1.0]))  # angle, horizontal scale, vertical scale

    def forward(self, features: Tensor) -> Tensor:
        """Return matrices (B, 2, 2) that scale, then rotate."""
        angle, horizontal, vertical = self.regression(self.localisation(features).flatten(1)).unbind(1)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack(
            [torch.stack([cos * horizontal, -sin * vertical], 1), torch.stack([sin * horizontal, cos * vertical], 1)], 1
        )


COPIES = 22


def augmented(image: Tensor, which: int) -> Tensor:
    """Return copy ``which`` (0 to 21) of images (B, 3, H, W): turned, shifted, flipped or grey; 0: the images."""
    angles = [sign * k * 11.25 for k in (1, 2, 3, 4) for sign in (-1, 1)] + [90, 180, 270]
    shifts = [(x * far, y * far) for far in (0.2, 0.1) for x in (-1, 1) for y in (-1, 1)]  # of half an image
    if which == 0:
        return image
    if which <= len(angles):
        return rotated_images(image, torch.full((len(image),), float(angles[which - 1])))
    which -= len(angles) + 1
    if which < len(shifts):
        across, down = shifts[which]
        return warped_images(
            image, torch.tensor([[[1, 0, across], [0, 1, down]]], device=image.device).repeat(len(image), 1, 1)
        )
    if which == len(shifts):
        return image.flip(3)
    grey = image.new_tensor([0.299, 0.587, 0.114])
    return torch.einsum("bchw,c->bhw", image, grey)[:, None].expand_as(image)


def augmented_region(region: Tensor, which: int) -> Tensor:
    """Return which pixels of copy ``which`` of some images count, given those of the images, (B, H, W) bool."""
    return augmented(region[:, None].float().expand(-1, 3, -1, -1), which)[:, 0] >= HALF


def registration_loss(network: _Registration, query: Tensor, support: Tensor) -> Tensor:
    """Return the symmetric negative cosine () of features (B, C, h, w), from -1 (equal) to 1."""
    encoded = [network.encoder(features) for features in (query, support)]
    predicted = [network.predictor(z) for z in encoded]
    return -sum(F.cosine_similarity(predicted[i], encoded[1 - i].detach(), dim=1).mean() for i in (0, 1)) / 2


def _centred(matrix: Tensor) -> Tensor:
    """Return affine matrices (B, 2, 3) without a translation."""
    return F.pad(matrix, (0, 1))


def _conv_block(width: int) -> Sequence[nn.Module]:
    return nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()


def _downsampling(before: int, after: int) -> Sequence[nn.Module]:
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)
