"""A discriminator tells adapted features from two kinds of synthetic ones: ascended noise and textured images.

Paper: Chen et al., "A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection and
    Localization" (GLASS), ECCV 2024, 2407.09359. Patch features of two layers pass a linear adaptor. Global anomalies:
    Gaussian noise is added to the adapted features, they take 20 steps of 0.001 along the gradient of the
    discriminator's loss, and after every fifth step they are projected to a distance between r and 2r, from their own
    normal feature (manifold, r = 0.5) or from the centre of their position (hypersphere, r the 75 % quantile of normal
    distances). Local anomalies: textures are blended into the image within Perlin masks on the object. The loss is the
    cross-entropy of normal and global features and, for the half of the local positions with the largest error, the
    focal loss. The score of a position is the discriminator's output.
Differs:
    * The last epoch counts. The authors keep the epoch with the best metrics on the test images.
    * Features are scaled to a root mean square of 0.1, so that the noise has the same effect with every backbone.
      ``rescale=False`` leaves them as they are. Steps and the radius 0.5, which are for 1536 values, grow with the
      square root of the number of values, as the noise does.
    * Without a folder of textures they are drawn. The paper takes the Describable Textures Dataset.
    * Objects are found by Otsu's method in each image. The authors have masks for every data set.
    * The image score is the largest logit, which has the order of the largest probability but no ties.
    * The focal loss has no label smoothing of 1e-5. The centre follows the adaptor at every step, not at every epoch.
Numbers: MVTec AD, WRN50-2, 288: image AUROC 99.9, pixel AUROC 99.3, AUPRO 96.8 (best epoch on the test images).
    anomalib's last epoch: image AUROC 97.2, pixel AUROC 96.5.
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
from iadbe.layers.blocks.discriminator import Discriminator
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.region import counted_places, image_score, masked, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.synthetic.foreground import object_mask
from iadbe.layers.synthetic.gradient_ascent import LENGTH, ascended, projected
from iadbe.layers.synthetic.perlin import combined_perlin_masks
from iadbe.layers.synthetic.photometric import grey
from iadbe.layers.synthetic.textures import TextureSource
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

DIM = 1536  # number of values for which the authors' radius and steps are
RADIUS = 0.5  # r of the manifold
QUANTILE = 0.75  # of normal distances from the centre: r of the hypersphere
HARD = 0.5  # share of the local positions that the focal loss leaves out
IMAGES = 392  # in an epoch, at most (the authors' limit)
SIDE, BOX = 289, 39  # of the mean image whose spectrum is looked at, and of the box that blurs it
OPACITY, LIMITS = (0.5, 0.1), (0.2, 0.8)  # weight of the image in a defect: mean and standard deviation; its limits


class GLASS(Detector):
    """Global and local anomaly synthesis with gradient ascent."""

    paper = "Chen et al., A Unified Anomaly Synthesis Strategy with Gradient Ascent, ECCV 2024, arXiv 2407.09359"
    year = 2024
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 288}
    paper_params = {
        "backbone": "wide_resnet50_2.tv_in1k",
        "embedding": 1536,
        "rescale": False,
        "distribution": "manifold",
    }
    paper_by_category = {
        "mvtec_ad/bottle": {"distribution": "hypersphere"},
        "mvtec_ad/cable": {"distribution": "hypersphere"},
        "mvtec_ad/pill": {"distribution": "hypersphere"},
        "mvtec_ad/screw": {"distribution": "hypersphere"},
        "mvtec_ad/transistor": {"distribution": "hypersphere"},
        "visa/cashew": {"distribution": "hypersphere"},
        "visa/fryum": {"distribution": "hypersphere"},
        "visa/pcb1": {"distribution": "hypersphere"},
        "visa/pcb2": {"distribution": "hypersphere"},
        "visa/pcb4": {"distribution": "hypersphere"},
        "visa/pipe_fryum": {"distribution": "hypersphere"},
    }

    centre: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        embedding: int = 0,
        distribution: Literal["auto", "manifold", "hypersphere"] = "auto",
        foreground: bool = True,
        textures: str = "",
        noise: float = 0.015,
        ascent: int = 20,
        rescale: bool = True,
        width: int = 1024,
        epochs: int = 640,
        batch: int = 8,
        sigma: float = 4.0,
    ) -> None:
        """Choose features, synthesis and training.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the first
            weights: a file, auto or none
            embedding: values per patch after adaptive average pooling (0: the layers as they are)
            distribution: what global anomalies are kept apart from: manifold (each its own normal feature),
                hypersphere (the centre of its position); auto: by the spectrum of the mean training image
            foreground: put local anomalies on the object only, where one stands out
            textures: a folder of texture images; empty: textures are drawn
            noise: standard deviation σ of the Gaussian noise on adapted features
            ascent: steps of gradient ascent
            rescale: scale features to a root mean square of 0.1
            width: units of the discriminator's hidden layer
            epochs: passes over the training images, of which each epoch takes 392 at most
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(width, epochs, batch) < 1 or ascent < 0 or noise <= 0:
            raise BadConfig("width, epochs, batch and noise must be above 0, ascent at least 0.")
        if distribution not in ("auto", "manifold", "hypersphere"):
            raise BadConfig(f"distribution is auto, manifold or hypersphere, not {distribution!r}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.embedding, self.distribution, self.foreground = embedding, distribution, foreground
        self.textures = TextureSource(textures, shuffled=0.0)
        self.noise, self.ascent, self.rescale = noise, ascent, rescale
        self.width, self.epochs, self.batch, self.sigma = width, epochs, batch, sigma
        self.dim = embedding or sum(self.backbone.channels)
        self.unit = (self.dim / DIM) ** 0.5  # of lengths in feature space
        self.register_buffer("centre", torch.empty(0))  # (h * w, D), before the adaptor; empty: manifold
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        cached = FeatureCache(lambda batch: [self._features(batch)])
        if self.rescale:
            self.level.fit(within(cached(batch)[0], batch.region) for batch in train.batches(16))
        self.centre = self._centre(train, cached)
        source, noise = generator(rng), generator(rng, train.device)
        optimizer = self._optimizer()
        self.discriminator.train()
        per_epoch = min(-(-len(train) // self.batch), IMAGES // self.batch + 1)
        for batch in loop(
            train, steps=self.epochs * per_epoch, batch=self.batch, rng=rng, state=(optimizer, source, noise)
        ):
            textured, mask = self._textured(batch.image, source)
            features = cached(batch)[0]
            places = counted_places(features, batch.region)
            covered = F.adaptive_max_pool2d(mask.float(), features.shape[-2:]).flatten()[places] > 0
            normal, local = (self._adapted(f)[places] for f in (features, self._features(textured)))
            step(optimizer, self._loss(normal, local, covered, noise, places))
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        features = self._features(batch)
        logits = self.discriminator(self._adapted(features)).view(-1, *features.shape[-2:])
        map_ = upsampled(logits.sigmoid(), batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(image_score(logits, batch.region), map_)

    def _initialise(self) -> None:
        """Make untrained layers, with weights from torch's global generator."""
        self.adaptor = nn.Linear(self.dim, self.dim)
        nn.init.xavier_normal_(self.adaptor.weight)
        self.discriminator = Discriminator(self.dim, self.width)
        self.level = Rescale()

    def _optimizer(self) -> torch.optim.Optimizer:
        """Adam for the adaptor, AdamW for the discriminator."""
        discriminator = {"params": self.discriminator.parameters(), "lr": 2e-4, "weight_decay": 1e-2}
        groups = [{"params": self.adaptor.parameters()}, {**discriminator, "decoupled_weight_decay": True}]
        return torch.optim.Adam(groups, 1e-4, weight_decay=1e-5)

    def _features(self, batch: Batch | Tensor) -> Tensor:
        """Return the patch features before the adaptor: (B, D, h, w)."""
        return patch_embedding(self.backbone(batch), self.embedding)

    def _adapted(self, features: Tensor) -> Tensor:
        """Return the adapted features (B * h * w, D) of patch features (B, D, h, w)."""
        return self.adaptor(self.level(flattened(features)))

    def _centre(self, train: Images, cached: FeatureCache) -> Tensor:
        """Return the mean feature of each position, scaled (h * w, D), or nothing for a manifold."""
        image = feature = torch.zeros(())
        seen = torch.zeros((), device=train.device)  # number of images in which a position counts
        for batch in train.batches(16):
            features = cached(batch)[0]
            image = image + batch.image.sum(0).cpu()
            feature = feature + masked(features, batch.region).sum(0).flatten(1).T.to(torch.float64)
            seen = seen + masked(torch.ones_like(features[:, :1]), batch.region).sum(0).flatten(1).T
        compact = self.distribution == "hypersphere"
        if self.distribution == "auto":
            compact = has_compact_spectrum(image / len(train))
        return self.level((feature / seen.clamp(min=1)).float()) if compact else torch.empty(0, device=train.device)

    def _textured(self, image: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Blend textures into images (B, 3, H, W): images and masks (B, 1, H, W), bool."""
        count, _, height, width = image.shape
        region = object_mask(image) if self.foreground else torch.ones_like(image[:, :1], dtype=torch.bool)
        mask = combined_perlin_masks(count, height, width, source, region.cpu()).to(image.device)
        mean, deviation = OPACITY
        share = (mean + deviation * torch.randn(count, 1, 1, 1, generator=source)).clamp(*LIMITS).to(image.device)
        mixed = share * image + (1 - share) * self.textures(image, source)
        return torch.where(mask, mixed, image), mask

    def _loss(
        self, normal: Tensor, local: Tensor, mask: Tensor, noise: torch.Generator, places: Tensor | None = None
    ) -> Tensor:
        """Return the loss () of adapted features of normal images and of textured ones, (N, D), with its mask (N,).

        ``places`` (N,) are their places among all positions of all images, by default in order.
        """
        noisy = normal + self.noise * torch.randn(normal.shape, generator=noise, device=normal.device)
        origin, low = normal, normal.new_tensor(RADIUS * self.unit)
        if len(self.centre):
            with torch.no_grad():
                places = torch.arange(len(normal), device=normal.device) if places is None else places
                origin = self.adaptor(self.centre)[places % len(self.centre)]
                good = torch.cat([(local - origin)[~mask], normal - origin])
                low = good.norm(dim=1).quantile(QUANTILE)
            local = torch.where(mask[:, None], projected(local, origin, 2 * low, 4 * low), local)
        noisy = ascended(
            *(self.discriminator, normal, noisy, self.ascent, LENGTH * self.unit),
            lambda points: projected(points, origin, low, 2 * low),
        )
        good_logits, bad_logits = self.discriminator(torch.cat([normal, noisy])).chunk(2)
        separation = F.softplus(good_logits).mean() + F.softplus(-bad_logits).mean()  # cross-entropy with 0 and with 1
        return separation + hard_focal_loss(self.discriminator(local), mask)


def hard_focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the focal loss with γ = 2, (), of the half of the logits (N,) with the largest squared error."""
    error = (logits.detach().sigmoid() - truth.to(logits)).square()
    hard = error >= error.quantile(HARD)
    return focal_loss(logits[hard], truth[hard], 2.0)


def has_compact_spectrum(image: Tensor) -> bool:
    """Return whether features of a category lie in a hypersphere, by the mean training image (3, H, W) in [0, 1].

    The image is resized to 289 x 289, its grey levels are blurred by a box of 39, and the Fourier coefficients whose
    logarithm is above 8.5 are looked at: they must fill more than 21 % of the rectangle or of the disc around them,
    be more than 60 and reach further than 12 from the middle. (Section 3.3 of the paper; values of the authors' code.)
    """
    resized = F.interpolate(image[None], (SIDE, SIDE), mode="bilinear", align_corners=False)
    blurred = F.avg_pool2d(F.pad((grey(resized) * 255).floor(), [BOX // 2] * 4, mode="reflect"), BOX, 1)[0, 0]
    magnitude = torch.fft.fftshift(torch.fft.fft2(blurred.cpu().double())).abs()
    middle = SIDE // 2
    far = (20 * magnitude.clamp(min=1e-9).log() > 170).nonzero() - middle  # (P, 2)
    count = len(far)
    if count <= 60 or float(radius := far.double().norm(dim=1).max()) <= 12:
        return False
    height, width = far.abs().amax(0).clamp(min=1).tolist()
    place = torch.arange(2 * SIDE, dtype=torch.float64) - middle
    disc = int((torch.hypot(place[:, None], place) <= radius).sum())
    return max(count / (4 * height * width), count / disc) > 0.21
