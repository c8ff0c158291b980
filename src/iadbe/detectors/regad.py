"""A network learns to lay images of one kind over each other; then a few good ones tell what belongs where.

Paper: Huang et al., "Registration based Few-Shot Anomaly Detection", ECCV 2022, 2207.07361. A spatial transformer of
    rotation and scale follows each of three layers of ResNet-18; a Siamese encoder and predictor learn that the last
    features of images of one category agree (negative cosine, gradient stopped on one side). Features are turned
    back, and at every position a Gaussian is taken over 22 augmented copies of each support image.
Differs: the supports of a query are drawn from its own batch, whose features are computed once (the authors' code
    draws and computes them anew). What comes before the first transformer does not learn; with ``whole=true`` it does,
    as in the paper. The network's batch norms keep their pretrained statistics, folded into its convolutions. Images
    are normalised as the backbone was trained; scale and rotation are one matrix product (the code scales the diagonal
    only); copies are made of at most 16 supports; the last epoch counts, where the
    authors' code keeps the best epoch on the test set. ``fit`` learns the registration and takes the statistics of the
    same images; ``update`` keeps the registration and takes those of new ones: other categories first, then a few
    images of the target, is the paper's setting. A lone image is paired with a copy of itself.
Numbers: MVTec AD, ResNet-18, 224, learnt on the other categories, with 2, 4 and 8 images: image AUROC 85.7, 88.2 and
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
from iadbe.layers.features.views import is_transformer, placed, turned
from iadbe.layers.statistics.gaussian import PositionGaussians
from iadbe.layers.training.loop import seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16  # images at a time when nothing is learnt
FEW = 16  # supports, of which augmented copies are made


class RegAD(Detector):
    """Feature registration, then a Gaussian per position."""

    paper = "Huang et al., Registration based Few-Shot Anomaly Detection, ECCV 2022, arXiv 2207.07361"
    year = 2022
    kind = "registration"
    can = frozenset({"localise", "meta-learning"})
    paper_view = {"resize": 224}
    paper_params = {"backbone": "resnet18.tv_in1k", "whole": True}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        epochs: int = 50,
        supports: int = 2,
        learning_rate: float = 1e-4,
        batch: int = 32,
        whole: bool = False,
        regularisation: float = 0.01,
        sigma: float = 4.0,
    ) -> None:
        """Choose the network, and how long it learns to register.

        Args:
            backbone: any convolutional timm model whose stages are modules: where the network starts from
            layers: layers that are transformed, and whose features the Gaussians are over
            weights: of the backbone: a file, auto or none
            epochs: how often every training image is a query
            supports: images of the query's category whose mean features it shall resemble
            learning_rate: of stochastic gradient descent with momentum 0.9, falling to 0 along a cosine
            batch: images per step, all of one category
            whole: train all of the network, which takes twice as long; else what comes after the first layer
            regularisation: is added to the diagonal of every covariance
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if epochs < 1 or batch < 2 or supports < 1 or learning_rate <= 0:
            raise BadConfig(
                f"epochs {epochs}, supports {supports} and learning_rate {learning_rate} must be above 0, "
                f"and batch {batch} at least 2."
            )
        self.backbone = Backbone(backbone, sorted(set(layers)), weights)
        self.epochs, self.supports, self.learning_rate, self.batch = epochs, supports, learning_rate, batch
        self.whole, self.sigma = whole, sigma
        self.gaussians = PositionGaussians(regularisation)
        self.registration = _Registration(self.backbone, self.view.size, whole)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.registration = _Registration(self.backbone, train.view.size, self.whole).to(train.device)
        self._learn(train, rng)
        self._settle(train)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        """Keep the registration; what is normal is told by the new images alone."""
        self._settle(train.normal())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        distance = self.gaussians.distance(self.registration.back(batch.image))
        found = upsampled(distance, batch.image.shape[-2:], self.sigma)
        return Prediction(found.amax((1, 2)), found)

    def _learn(self, train: Images, rng: np.random.Generator) -> None:
        """Train the registration on images of one category at a time."""
        network = self.registration.train()
        optimizer = torch.optim.SGD(network.parameters(), self.learning_rate, momentum=0.9)
        for share, image in self._batches(train, rng):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * share)) / 2
            features = network(image)[0][-1]
            # query i is compared with its followers in the batch, whose order is random
            count = min(self.supports, len(image) - 1)
            support = torch.stack([features.roll(-shift, 0) for shift in range(1, count + 1)]).mean(0)
            step(optimizer, agreement(network, features, support))
        network.eval()

    def _batches(self, train: Images, rng: np.random.Generator) -> Iterator[tuple[float, Tensor]]:
        """Yield which share of the epochs is over, and the images (B, 3, H, W) of one category, at least two."""
        kinds = [[i for i, e in enumerate(train.examples) if e.sample.category == kind] for kind in train.categories]
        done, total = 0, self.epochs * len(train)
        for epoch in range(self.epochs):
            chunks = [c for kind in kinds for c in np.array_split(rng.permutation(kind), -(-len(kind) // self.batch))]
            for number in rng.permutation(len(chunks)):
                if progress.time_is_up():
                    return
                progress.report("fit", done, total)
                image = next(train.subset(chunks[number].tolist()).batches(self.batch)).image
                done += len(image)
                if len(image) == 1:
                    image = torch.cat([image, augmented(image, int(rng.integers(1, COPIES)))])
                yield epoch / self.epochs, image
        progress.report("fit", total, total)

    @torch.no_grad()
    def _settle(self, train: Images) -> None:
        """Take the statistics of the features of images and, if they are few, of their augmented copies."""
        self.gaussians.reset()
        copies = COPIES if len(train) <= FEW else 1
        for number, batch in enumerate(train.batches(BATCH)):
            for which in range(copies):
                self.gaussians.add(self.registration.back(augmented(batch.image, which)))
            progress.report("features", min((number + 1) * BATCH, len(train)), len(train))
        self.gaussians.factorise()


class _Registration(nn.Module):
    """The trained network with a transformer after each layer; encoder and predictor, which only training needs."""

    def __init__(self, backbone: Backbone, size: int, whole: bool) -> None:
        super().__init__()
        if is_transformer(backbone):
            raise BadConfig(
                f"RegAD turns feature maps between the stages of a convolutional network; {backbone.name} is none."
            )
        self.layers, channels = backbone.layers, backbone.channels
        self.stages = [str(backbone.network.feature_info[layer]["module"]) for layer in self.layers]
        self.network = copy.deepcopy(backbone.network).requires_grad_(True)
        self.whole = whole
        if not whole:
            for module in self._early():
                module.requires_grad_(False)
        self.register_buffer("mean", backbone.mean.clone())
        self.register_buffer("std", backbone.std.clone())
        pairs = zip(channels, backbone.strides, strict=True)
        self.aligners = nn.ModuleList(_Aligner(width, -(-size // stride)) for width, stride in pairs)
        width = channels[-1]
        self.encoder = nn.Sequential(*_block(width), *_block(width), nn.Conv2d(width, width, 1, bias=False))
        self.predictor = nn.Sequential(*_block(width), nn.Conv2d(width, width, 1, bias=False))

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return each layer's registered features (B, C, h, w), and by which matrices (B, 2, 2) they were turned."""
        turns: list[Tensor] = []

        def align(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            turns.append(self.aligners[len(turns)](output))
            return placed(output, _centred(turns[-1]))

        handles = [self._stage(name).register_forward_hook(align) for name in self.stages]
        try:
            shown = ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            found = self.network.forward_intermediates(
                shown, indices=list(self.layers), intermediates_only=True, stop_early=True
            )
        finally:
            for handle in handles:
                handle.remove()
        return found, turns

    @torch.no_grad()
    def back(self, image: Tensor) -> list[Tensor]:
        """Return each layer's registered features, turned back to where they lie in the image: (B, C, h, w)."""
        found, turns = self.eval()(image)
        for number in range(len(found)):
            for turn in reversed(turns[: number + 1]):
                found[number] = placed(found[number], _centred(torch.linalg.inv(turn)))
        return found

    def train(self, mode: bool = True) -> _Registration:
        """Let the statistics of what does not learn stay as they are."""
        super().train(mode)
        for module in () if self.whole else self._early():
            module.eval()
        return self

    def _early(self) -> Iterator[nn.Module]:
        """Yield the modules up to the end of the first layer."""
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
            raise BadConfig(f"RegAD cannot enter this backbone: its stage {name} is no module of its own.") from error


class _Aligner(nn.Module):
    """Look at a feature map and say how to turn and stretch it: at first, not at all."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.look = nn.Sequential(*_halved(channels, 64), *_halved(64, 16))
        side = math.ceil(side / 4)
        self.decide = nn.Sequential(nn.Linear(16 * side * side, 1024), nn.ReLU(), nn.Linear(1024, 3))
        nn.init.zeros_(self.decide[2].weight)
        with torch.no_grad():
            self.decide[2].bias.copy_(torch.tensor([0.0, 1.0, 1.0]))  # angle, scale across, scale down

    def forward(self, features: Tensor) -> Tensor:
        """Return the matrices (B, 2, 2) of a scale, then a rotation."""
        angle, across, down = self.decide(self.look(features).flatten(1)).unbind(1)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([torch.stack([cos * across, -sin * down], 1), torch.stack([sin * across, cos * down], 1)], 1)


COPIES = 22


def augmented(image: Tensor, which: int) -> Tensor:
    """Return one of the 22 copies of images (B, 3, H, W) that statistics are taken of; 0: as they are."""
    angles = [sign * k * 11.25 for k in (1, 2, 3, 4) for sign in (-1, 1)] + [90, 180, 270]
    shifts = [(x * far, y * far) for far in (0.2, 0.1) for x in (-1, 1) for y in (-1, 1)]  # of half an image
    if which == 0:
        return image
    if which <= len(angles):
        return turned(image, torch.full((len(image),), float(angles[which - 1])))
    which -= len(angles) + 1
    if which < len(shifts):
        across, down = shifts[which]
        return placed(
            image, torch.tensor([[[1, 0, across], [0, 1, down]]], device=image.device).repeat(len(image), 1, 1)
        )
    if which == len(shifts):
        return image.flip(3)
    grey = image.new_tensor([0.299, 0.587, 0.114])
    return torch.einsum("bchw,c->bhw", image, grey)[:, None].expand_as(image)


def agreement(network: _Registration, query: Tensor, support: Tensor) -> Tensor:
    """Return the symmetric negative cosine of features (B, C, h, w), from -1 (they agree) to 1."""
    ends = [network.encoder(features) for features in (query, support)]
    guesses = [network.predictor(end) for end in ends]
    return -sum(F.cosine_similarity(guesses[i], ends[1 - i].detach(), dim=1).mean() for i in (0, 1)) / 2


def _centred(turn: Tensor) -> Tensor:
    """Return matrices (B, 2, 3) that keep the middle where it is."""
    return F.pad(turn, (0, 1))


def _block(width: int) -> Sequence[nn.Module]:
    return nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()


def _halved(before: int, after: int) -> Sequence[nn.Module]:
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)
