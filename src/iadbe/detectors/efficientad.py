"""A shallow student predicts a teacher's descriptors and an autoencoder's; both differences are the map.

Paper: Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", WACV 2024,
    arXiv:2303.14535. Teacher and student are patch description networks (PDN, S or M), the teacher distilled from a
    backbone, its channels scaled over the training images. The student's first half learns the teacher with the hard
    feature loss (the 0.1 % largest squared differences) and a penalty on what it says of other images, the second half
    the autoencoder, which learns the teacher on images with changed brightness, contrast or saturation. Both maps of
    mean squared differences are scaled so that the quantiles 0.9 and 0.995 of held-out good images are 0 and 0.1, and
    averaged. An image's score is the largest value of its map.
Differs:
    * The paper's teacher is distilled from a Wide ResNet-101 on ImageNet in 60 000 steps. The small one that comes with
      the package is distilled from the embedded network on 39 photographs, textures and drawings
      (``networks/pdn_s.json`` says which, how and with what loss); a medium one is made once by ``iadbe distil``.
      ``weights`` takes the public teachers, and ``iadbe distil`` makes one from any backbone on any folder of images.
    * Without a folder (``penalty``) the penalty images are drawn textures; the paper's are ImageNet's.
    * For views other than 256 the autoencoder's grids are in proportion, and its code is one position up to 256 pixels.
    * A tenth of the good images is held out on every data set; MVTec LOCO's own validation images are not used.
Numbers: MVTec AD, 256: image AUROC 98.8 (S) and 99.1 (M), AUPRO 93.1 and 93.5 (the paper's); VisA 97.5 and 98.1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.files import image_io
from iadbe.layers.blocks.pdn import BORDER, FIELD, PDN, STRIDE, teacher
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import at_grid, average_pooled, image_score, rows_within, within
from iadbe.layers.synthetic.photometric import grey, jittered
from iadbe.layers.synthetic.textures import procedural_textures, recoloured
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import state_fingerprint
from iadbe.types import Prediction

HARD = 0.999  # quantile of the squared differences from which they count
QUANTILES = (0.9, 0.995)  # of the maps of held-out images, which become 0 and 0.1
HELD_OUT = 0.1  # share of the good images
GREY = 0.3  # share of the penalty images that lose their colour
DROPOUT = 0.2
CODE = 64  # channels of the autoencoder's code
LEAST_VIEW = FIELD + STRIDE  # pixels
DRAWN = "the penalty images were drawn textures; the paper takes ImageNet (penalty=FOLDER)."


class EfficientAD(Detector):
    """Student, teacher and autoencoder on patch descriptions."""

    paper = "Batzner et al., EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies, WACV 2024"
    year = 2024
    kind = "student-teacher"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    weight_files = {"weights": "teacher_small.pth or teacher_medium.pth (the paper's way, on ImageNet)"}

    scale_mean: Tensor
    scale_deviation: Tensor
    quantiles: Tensor

    def __init__(
        self,
        model_size: Literal["S", "M"] = "S",
        weights: str = "auto",
        width: int = 384,
        penalty: str = "",
        steps: int = 70_000,
        learning_rate: float = 1e-4,
        batch: int = 1,
    ) -> None:
        """Choose teacher and training.

        Args:
            model_size: of teacher and student: S has four convolutions, M six
            weights: the teacher's: a file of iadbe distil, of nelson1425/EfficientAD or of anomalib; auto: that of the
                package (S), else of the cache; none: random
            width: channels of a descriptor, as in the teacher's file
            penalty: a folder of images of other things (the paper: ImageNet); "": textures are drawn
            steps: training steps
            learning_rate: of Adam with weight decay 1e-5; a tenth of it in the last 5 % of the steps
            batch: images per step
        """
        super().__init__()
        if min(width, steps, batch) < 1 or learning_rate <= 0:
            raise BadConfig(
                f"width {width}, steps {steps}, batch {batch} and learning_rate {learning_rate} must be above 0."
            )
        self.teacher, self._source = teacher(weights, model_size, width)
        self._fingerprint = state_fingerprint(self.teacher.state_dict())
        self.model_size, self.width, self.penalty = model_size, width, penalty
        self.steps, self.learning_rate, self.batch = steps, learning_rate, batch
        self.register_buffer("scale_mean", torch.zeros(1, width, 1, 1))
        self.register_buffer("scale_deviation", torch.ones(1, width, 1, 1))
        self.register_buffer("quantiles", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))  # (maps, quantiles)
        self.student = PDN(model_size, width, 2 * width)
        self.autoencoder = _Autoencoder(width, self.view.shape)

    def weights(self) -> str:
        """Return the teacher's size, fingerprint and source."""
        fingerprint = state_fingerprint(self.teacher.state_dict())
        # a saved model's teacher comes from the model
        source = f" from {self._source}" if fingerprint == self._fingerprint else ""
        return f"pdn_{self.model_size.lower()}: {fingerprint}{source}"

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        shape = train.view.shape
        if min(shape) < LEAST_VIEW:
            raise BadConfig(f"EfficientAD needs a view of at least {LEAST_VIEW} pixels, not {train.view}.")
        rest, held_out = train.split(HELD_OUT, rng)
        if not len(rest) or not len(held_out):  # a single image, or images of one group
            rest = held_out = train
        with seeded(rng):
            self.student = PDN(self.model_size, self.width, 2 * self.width)
            self.autoencoder = _Autoencoder(self.width, shape)
        self.to(train.device)
        self._fit_scale(rest)
        outside = _PenaltyImages(self.penalty, shape)
        drawn, noise = generator(rng), generator(rng, train.device)
        trained = [*self.student.parameters(), *self.autoencoder.parameters()]
        optimizer = torch.optim.Adam(trained, self.learning_rate, weight_decay=1e-5)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, int(0.95 * self.steps)), 0.1)
        cached = FeatureCache(lambda batch: [self._described(batch.image)])
        state = (optimizer, schedule, drawn, noise)
        for batch in loop(rest, steps=self.steps, batch=self.batch, rng=rng, state=state):
            described = cached(batch)[0]
            changed = jittered(batch.image, drawn)
            others = outside(len(batch), drawn).to(changed)
            step(optimizer, self._loss(batch, described, others, changed, noise))
            schedule.step()
        self._fit_quantiles(held_out)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        low, high = self.quantiles.view(2, 2, 1, 1).unbind(1)  # (maps, 1, 1) each
        scaled = 0.1 * (self._maps(batch.image) - low) / (high - low).clamp(min=1e-12)
        whole = F.pad(scaled.mean(1), (BORDER,) * 4)
        map_ = upsampled(whole, batch.image.shape[-2:], sigma=0, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    @torch.no_grad()
    def _described(self, image: Tensor) -> Tensor:
        """Return the teacher's scaled descriptors (B, C, h, w)."""
        return (self.teacher(image).float() - self.scale_mean) / self.scale_deviation

    def _loss(
        self, batch: Batch, described: Tensor, outside: Tensor, changed: Tensor, noise: torch.Generator
    ) -> Tensor:
        """Return the loss () given images, the teacher's descriptors of them, penalty images and changed images.

        Only the half of the student's output that a term needs is computed.
        """
        seen = self.student.trunk(torch.cat([batch.image, outside, changed]))
        of_image, of_outside, of_changed = seen.split([len(batch), len(outside), len(changed)])
        first, second = slice(self.width), slice(self.width, None)
        imitation, elsewhere = self.student.head(torch.cat([of_image, of_outside]), first).float().split(len(batch))
        target = self._described(changed)
        reconstruction = self.autoencoder(changed, target.shape[-2:], noise).float()
        imitated = self.student.head(of_changed, second).float()
        region = descriptors_of(batch.region, target)
        hard = hard_feature_loss(within((described - imitation).square(), region))
        return (
            hard
            + elsewhere.square().mean()
            + within((target - reconstruction).square(), region).mean()
            + within((reconstruction - imitated).square(), region).mean()
        )

    def _maps(self, image: Tensor) -> Tensor:
        """Return the student's mean squared differences to teacher and autoencoder: (B, 2, h, w)."""
        described = self._described(image)
        first, second = self.student(image).split(self.width, 1)
        reconstruction = self.autoencoder(image, described.shape[-2:])
        return torch.stack([(described - first).square().mean(1), (reconstruction - second).square().mean(1)], 1)

    @torch.no_grad()
    def _fit_scale(self, train: Images) -> None:
        """Set the mean and the deviation of each of the teacher's channels over the training images."""
        total = square = torch.zeros((), dtype=torch.float64)
        for batch in train.batches(4):
            values = self.teacher(batch.image)
            values = (values.cpu() if values.device.type == "mps" else values).double()  # mps has no float64
            region = descriptors_of(batch.region, values)
            total = total + average_pooled(values, region).sum(0)
            square = square + average_pooled(values.square(), region).sum(0)
        mean = total / len(train)
        deviation = (square / len(train) - mean.square()).clamp(min=1e-12).sqrt()
        scales = (v.float().view(1, -1, 1, 1).to(train.device) for v in (mean, deviation))
        self.scale_mean, self.scale_deviation = scales

    @torch.no_grad()
    def _fit_quantiles(self, held_out: Images) -> None:
        maps = [(self._maps(batch.image), batch.region) for batch in held_out.batches(4)]  # (B, 2, h, w)
        rows = torch.cat([rows_within(m, descriptors_of(region, m)).cpu() for m, region in maps])  # (N, 2)
        # NumPy's has no limit on the number of values
        found = np.quantile(rows.T.numpy(), QUANTILES, axis=1).T
        self.quantiles = torch.from_numpy(np.ascontiguousarray(found, np.float32)).to(held_out.device)


def descriptors_of(region: Tensor | None, like: Tensor) -> Tensor | None:
    """Return which descriptors (B, h, w) count, on the grid of ``like`` (B, C, h, w), which lacks the border."""
    height, width = (side + 2 * BORDER for side in like.shape[-2:])
    counts = at_grid(region, (height, width))
    return None if counts is None else counts[:, BORDER:-BORDER, BORDER:-BORDER].to(like.device)


def hard_feature_loss(squares: Tensor) -> Tensor:
    """Return the mean of the squared differences (any shape) that reach their quantile ``HARD``: ()."""
    count = squares.numel() - math.ceil(HARD * (squares.numel() - 1))
    return squares.flatten().topk(count, sorted=False).values.mean()


class _PenaltyImages:
    """Images of other things: the centres of those in a folder, or drawn textures; some are grey."""

    def __init__(self, folder: str, shape: tuple[int, int]) -> None:
        self.shape = shape
        root = Path(folder).expanduser()
        self.files = sorted(p for p in root.rglob("*") if p.is_file() and image_io.is_image(p)) if folder else []
        if folder and not self.files:
            raise BadConfig(f"there is no image in {folder}. penalty takes a folder of images, or nothing.")
        if not self.files:
            progress.note(DRAWN)
        self._read = lru_cache(1024)(self._centre)

    def __call__(self, count: int, source: torch.Generator) -> Tensor:
        """Return images (B, 3, H, W) in [0, 1]; ``source`` is on the CPU."""
        if self.files:
            chosen = torch.randint(len(self.files), (count,), generator=source).tolist()
            images = torch.stack([self._read(number) for number in chosen]).float() / 255
        else:
            images = recoloured(procedural_textures(count, *self.shape, source), source)
        without = (torch.rand(count, generator=source) < GREY).view(-1, 1, 1, 1)
        return torch.where(without, grey(images), images)

    def _centre(self, number: int) -> Tensor:
        """Return the centre of an image at twice the view's size: (3, H, W) uint8."""
        height, width = self.shape
        pixels = image_io.resized(image_io.read_rgb(self.files[number]), 2 * height, 2 * width)
        top, left = height // 2, width // 2
        pixels = pixels[top : top + height, left : left + width]
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


class _Autoencoder(nn.Module):
    """From images (B, 3, H, W) in [0, 1] by a code of 64 channels to the teacher's descriptors (B, C, h, w)."""

    mean: Tensor
    std: Tensor

    def __init__(self, outputs: int, shape: tuple[int, int]) -> None:
        """Make the layers for images of ``shape`` (H, W) and descriptors of ``outputs`` channels."""
        super().__init__()
        channels = (3, 32, 32, 64, 64, CODE)
        pairs = pairwise(channels)
        self.encoder = nn.ModuleList(nn.Conv2d(before, after, 4, 2, 1) for before, after in pairs)
        height, width = (max(1, min(8, side // 32)) for side in shape)
        self.code = nn.Conv2d(CODE, CODE, (height, width))
        self.decoder = nn.ModuleList(nn.Conv2d(CODE, CODE, 4, padding=2) for _ in range(6))
        self.last = nn.ModuleList([nn.Conv2d(CODE, CODE, 3, padding=1), nn.Conv2d(CODE, outputs, 3, padding=1)])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, grid: tuple[int, int], noise: torch.Generator | None = None) -> Tensor:
        """Return descriptors on this grid; ``noise`` draws the dropout of training, without it there is none."""
        x = (image - self.mean) / self.std
        for convolution in self.encoder:
            x = F.relu(convolution(x))
        x = self.code(x)
        for convolution, size in zip(self.decoder, _grids(image.shape[-2:]), strict=True):
            x = F.relu(convolution(F.interpolate(x, size, mode="bilinear", align_corners=False)))
            if noise is not None:
                kept = torch.rand(x.shape, generator=noise, device=x.device) >= DROPOUT
                x = x * kept / (1 - DROPOUT)
        x = F.interpolate(x, grid, mode="bilinear", align_corners=False)
        return self.last[1](F.relu(self.last[0](x)))


def _grids(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the grids before the decoder's convolutions: 3, 8, 15, 32, 63 and 127 for 256 pixels, as in the paper."""
    parts = ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1))  # even kernels add one position, padded on both sides
    return [tuple(max(1, side // part - less) for side in size) for part, less in parts]
