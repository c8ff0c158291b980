"""Features of defects that a diffusion model made are reconstructed without them; selected residuals are segmented.

Paper: Zhang et al., "RealNet: A Feature Selection Network with Realistic Synthetic Anomaly for Anomaly Detection", CVPR
    2024, 2403.05897. SDAS: a diffusion model learns the training images; sampled with the variance of every step times
    1 + s, s from 0.1 to 0.2, it makes images that are almost normal. Blended in Perlin masks, they are the defects of
    half of the training images. AFS: of each layer of a frozen backbone the channels are kept whose squared difference
    between an image with and without a defect, scaled to [0, 1], is closest to the mask. U-Nets reconstruct the kept
    features without the defect (squared error). RRS: the squared residuals of all layers are normalised, and those with
    the highest maximum and the highest mean in an image go on to a discriminator (cross-entropy of the mask). The map
    is its probability; the image score the maximum of means over 16 x 16 pixels. Constants are the authors' code's.
Differs:
    * The diffusion model starts from random weights and learns the images that are given. The authors train on an
      ImageNet model, on all categories of a data set at once, told the class, and also guide it with a classifier.
      The average of its weights forgets the first ones sooner, and no gradients of three batches are added up.
    * Selected features are scaled to a root mean square of 0.2 in each layer, about that of a ResNet, so that both
      losses weigh the same with every backbone. ``rescale=False`` leaves them as they are.
    * Objects are found by Otsu's method in each image. The authors choose a threshold for each category.
    * The last epoch counts. The authors keep the one with the best metrics on the test images.
Numbers: MVTec AD, WRN50-2, 256: image AUROC 99.6, pixel AUROC 99.0; VisA: 97.8 and 98.8. All categories together
    (ADer): image AUROC 84.8, pixel AUROC 72.6.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.diffusion_unet import DiffusionUNet, scales
from iadbe.layers.features.region import image_score, masked, within
from iadbe.layers.features.views import resized_images
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.foreground import object_mask
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.training.diffusion import NoiseSchedule, hybrid_loss, noise_like, sampled
from iadbe.layers.training.ema import EMA
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.state import Variables
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

STRENGTH = (0.1, 0.2)  # s, drawn for each batch of samples
SAMPLING_STEPS = 20  # of the 1000 of the schedule
CLIP = 1.0  # largest norm of the diffusion model's gradients
DEFECTIVE = 0.5  # share of the training images that get a synthetic defect
OPACITY = (0.5, 1.0)  # of a defect
MULTIPLIERS, ATTENTION, HEAD = (1, 2, 4), (2, 4), 64  # of the reconstruction: channels, grids and heads
MOMENTUM = 0.9  # of the statistics that normalise residuals
WINDOW = 16  # pixels: side of the means whose maximum is the image score
DIFFUSION_TIME, SAMPLING_TIME = 0.5, 0.3  # shares of what is left of a time budget, at most
BATCH_OF_SAMPLES = 16
LEVEL = 0.2  # root mean square of rescaled features


class RealNet(Detector):
    """Reconstruction of selected features, trained on anomalies of a diffusion model."""

    paper = "Zhang et al., RealNet: A Feature Selection Network with Realistic Synthetic Anomaly, CVPR 2024, 2403.05897"
    year = 2024
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.racm_in1k", "rescale": False}
    paper_by_category = {
        "mvtec_ad/carpet": {"foreground": False},
        "mvtec_ad/leather": {"foreground": False},
        "mvtec_ad/tile": {"foreground": False},
        "mvtec_ad/wood": {"foreground": False},
        "mvtec_ad/cable": {"foreground": False},
        "mvtec_ad/transistor": {"foreground": False},
        "visa/capsules": {"foreground": False},
        "btad/02": {"foreground": False},
    }

    samples: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3, 4),
        weights: str = "auto",
        channels: tuple[int, ...] = (256, 512, 512, 256),
        residuals: int = 256,
        selection: int = 64,
        rescale: bool = True,
        ratio: float = 0.5,
        size: int = 256,
        width: int = 256,
        attention: int = 32,
        steps: int = 43_500,
        diffusion_rate: float = 1e-4,
        diffusion_batch: int = 20,
        decay: float = 0.9999,
        generated: int = 10_000,
        foreground: bool = True,
        epochs: int = 1000,
        learning_rate: float = 1e-4,
        batch: int = 16,
    ) -> None:
        """Set up untrained networks.

        Args:
            backbone: any convolutional timm model
            layers: layers whose features are reconstructed
            weights: of the backbone: a file, auto or none
            channels: channels of each layer that are selected, at most all of them
            residuals: channels that are selected by the maximum of their residuals, and as many by the mean
            selection: batches of images with defects by which channels of the layers are selected
            rescale: scale the selected features of each layer to a root mean square of 0.2
            ratio: width of the reconstruction, as a share of a layer's selected channels
            size: side in pixels of the images that the diffusion model learns and makes, at least 16
            width: channels of the diffusion model at full size
            attention: side of the largest grid of the diffusion model whose positions attend to each other
            steps: training steps of the diffusion model (240 epochs of MVTec AD, like the authors' checkpoint)
            diffusion_rate: learning rate of the diffusion model (Adam)
            diffusion_batch: images per step of the diffusion model
            decay: of the average of its weights, which makes the images; in [0, 1)
            generated: number of images that it makes
            foreground: put synthetic defects on the object only, where one stands out
            epochs: passes over the training images after that
            learning_rate: of Adam after it
            batch: images per step after it
        """
        super().__init__()
        self.backbone = Backbone(backbone, layers, weights)
        self.residuals, self.selection, self.rescale, self.ratio = residuals, selection, rescale, ratio
        self.size, self.width, self.attention, self.steps = size, width, attention, steps
        self.diffusion_rate, self.diffusion_batch, self.decay = diffusion_rate, diffusion_batch, decay
        self.generated, self.foreground, self.epochs = generated, foreground, epochs
        self.learning_rate, self.batch = learning_rate, batch
        self._check(channels)
        self.selected = [min(n, own) for n, own in zip(channels, self.backbone.channels, strict=True)]
        self.residuals = min(residuals, sum(self.selected))
        self.schedule = NoiseSchedule()
        self.register_buffer("samples", torch.empty(0, dtype=torch.uint8), persistent=False)  # (N, 3, size, size)
        self._reset()

    def _check(self, channels: tuple[int, ...]) -> None:
        """Raise BadConfig for parameters that no training can follow."""
        counts = (self.width, self.steps, self.diffusion_batch, self.generated, self.residuals, self.selection)
        if min(*counts, self.epochs, self.batch) < 1 or self.size < 16:
            raise BadConfig("all counts and width must be above 0, and size at least 16.")
        if self.width % 2 or self.attention < 0 or not 0 <= self.decay < 1:
            raise BadConfig("width must be even, attention not negative, decay in [0, 1).")
        if min(self.ratio, self.learning_rate, self.diffusion_rate) <= 0:
            raise BadConfig("ratio, learning_rate and diffusion_rate must be above 0.")
        layers = self.backbone.layers
        if len(channels) != len(layers) or min(channels) < 1:
            raise BadConfig(f"channels are above 0, one for each of the layers {list(layers)}, not {list(channels)}.")

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._reset()
        self.to(train.device).eval()
        source = generator(rng)
        with progress.budget_share(DIFFUSION_TIME):
            network = self.trained_diffusion(train, source, rng)
        with progress.budget_share(SAMPLING_TIME):
            self._generate(network, train, source, rng)
        self._select_channels(train, source, rng)
        self._train_reconstruction(train, source, rng)
        self.samples = torch.empty(0, dtype=torch.uint8, device=train.device)
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        _, logits = self._networks(self._features(self.backbone(batch)), batch.image.shape[-2:])
        map_ = logits.softmax(1)[:, 1]
        side = min(WINDOW, *map_.shape[-2:])
        means = F.avg_pool2d(masked(map_, batch.region)[:, None], side, stride=1)[:, 0]
        return Prediction(image_score(means, batch.region), map_)

    def trained_diffusion(self, train: Images, source: torch.Generator, rng: np.random.Generator) -> DiffusionUNet:
        """Return a diffusion model of the images in [-1, 1], which predicts noise and variance."""
        with seeded(rng):
            network = DiffusionUNet(
                3, 6, self.width, *scales(self.size, self.attention), head_channels=HEAD, modulated=True
            )
        network = network.to(train.device, memory_format=torch.channels_last)
        average = EMA(network, self.decay, ramp_up=True)
        optimizer = torch.optim.Adam(network.parameters(), self.diffusion_rate)
        state = (network, average, optimizer, source)
        for batch in loop(train, steps=self.steps, batch=self.diffusion_batch, rng=rng, state=state):
            shown = batch.taken(batch.cycled(self.diffusion_batch))
            image = resized_images(shown.image, self.size) * 2 - 1
            t = torch.randint(len(self.schedule), (len(image),), generator=source)
            noise = noise_like(image, source)
            step(optimizer, hybrid_loss(self.schedule, network, image, t, noise, shown.region), CLIP)
            average.update()
        return average.network

    def _generate(
        self, network: DiffusionUNet, train: Images, source: torch.Generator, rng: np.random.Generator
    ) -> None:
        """Make samples. The loop's images are not used: it gives progress, time budget and checkpoints."""
        shape = (self.generated, 3, self.size, self.size)
        self.samples = torch.zeros(shape, dtype=torch.uint8, device=train.device)
        done = Variables(images=0)
        rounds = -(-self.generated // BATCH_OF_SAMPLES)
        for _ in loop(train, steps=rounds, batch=1, rng=rng, state=(source, done)):
            made = self.new_samples(network, min(BATCH_OF_SAMPLES, self.generated - done.images), source)
            self.samples[done.images : done.images + len(made)] = made
            done.images += len(made)
        if not done.images:  # no time was left
            self.samples = self.new_samples(network, 1, source)
        elif done.images < self.generated:
            self.samples = self.samples[: done.images].clone()

    def new_samples(self, network: DiffusionUNet, count: int, source: torch.Generator) -> Tensor:
        """Return images (count, 3, size, size), uint8, of one anomaly strength that is drawn."""
        noise = torch.randn(count, 3, self.size, self.size, generator=source).to(self.samples.device)
        strength = _uniform(STRENGTH, source)
        made = sampled(self.schedule.spaced(SAMPLING_STEPS), network, noise, source, strength)
        return ((made + 1) * 127.5).clamp(0, 255).to(torch.uint8)

    def _select_channels(self, train: Images, source: torch.Generator, rng: np.random.Generator) -> None:
        """Keep the channels of each layer in which a defect shows best where it is (AFS)."""
        error, square = ([torch.zeros(n, device=train.device) for n in self.backbone.channels] for _ in range(2))
        left = self.selection
        while left:
            for batch in itertools.islice(train.batches(self.batch, rng), left):
                shown = batch.taken(batch.cycled(self.batch))
                image, region = shown.image, shown.region
                corrupted, mask = self._with_defects(image, source)
                normal = self.backbone(image)
                for number, (own, plain) in enumerate(zip(self.backbone(corrupted), normal, strict=True)):
                    error[number] += channel_errors(own, plain, mask, region)
                    squares = within(plain.square(), region)
                    square[number] += squares.mean((0, *range(2, squares.dim()))) / self.selection
                left -= 1
        for number, count in enumerate(self.selected):
            chosen = error[number].topk(count, largest=False).indices.sort().values
            level = square[number][chosen].mean().sqrt() if self.rescale else square[number].new_tensor(LEVEL)
            setattr(self, f"chosen{number}", chosen)
            setattr(self, f"factor{number}", LEVEL / level.clamp(min=1e-6))

    def _train_reconstruction(self, train: Images, source: torch.Generator, rng: np.random.Generator) -> None:
        """Train what reconstructs features and what segments residuals."""
        trained = nn.ModuleList([self.reconstruction, self.norm, self.discriminator]).train()
        optimizer = torch.optim.Adam(trained.parameters(), self.learning_rate)
        cached = FeatureCache(lambda batch: self._features(self.backbone(batch)))
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, source)):
            rows = batch.cycled(self.batch)
            normal, image = [layer[rows] for layer in cached(batch)], batch.image[rows]
            features, mask = [layer.clone() for layer in normal], torch.zeros_like(image[:, 0], dtype=torch.int64)
            defective = (torch.rand(len(rows), generator=source) < DEFECTIVE).nonzero()[:, 0].to(image.device)
            if len(defective):
                corrupted, where = self._with_defects(image[defective], source)
                mask[defective] = where[:, 0].long()
                for layer, found in zip(features, self._features(self.backbone(corrupted)), strict=True):
                    layer[defective] = found
            step(optimizer, self._loss(features, normal, mask, batch.taken(rows).region))
        trained.eval()

    def _loss(self, features: list[Tensor], normal: list[Tensor], mask: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the loss () of selected features, (B, C, h, w) each, those without defects, masks (B, H, W), int64."""
        reconstructed, logits = self._networks(features, mask.shape[-2:])
        pairs = zip(reconstructed, normal, strict=True)
        errors = [F.mse_loss(within(own, region), within(target, region)) for own, target in pairs]
        return F.cross_entropy(within(logits, region), within(mask, region)) + torch.stack(errors).sum()

    def _reset(self) -> None:
        """Select the first channels and make untrained networks; torch's generator draws their weights."""
        for number, count in enumerate(self.selected):
            self.register_buffer(f"chosen{number}", torch.arange(count))
            self.register_buffer(f"factor{number}", torch.ones(()))
        self.reconstruction = nn.ModuleList(
            DiffusionUNet(n, n, max(1, int(self.ratio * n)), MULTIPLIERS, ATTENTION, head_channels=HEAD, timed=False)
            for n in self.selected
        ).to(memory_format=torch.channels_last)  # quicker on processors
        self.norm = nn.BatchNorm2d(sum(self.selected), momentum=MOMENTUM, affine=False)
        self.discriminator = _Discriminator(2 * self.residuals).to(memory_format=torch.channels_last)

    def _features(self, layers: list[Tensor]) -> list[Tensor]:
        """Return the selected channels of layers, rescaled, (B, C, h, w) each."""
        return [
            layer[:, getattr(self, f"chosen{number}")] * getattr(self, f"factor{number}")
            for number, layer in enumerate(layers)
        ]

    def _networks(self, features: list[Tensor], size: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
        """Return reconstructed features, (B, C, h, w) each, and two logits per pixel (B, 2, H, W)."""
        plain = [f.contiguous(memory_format=torch.channels_last) for f in features]
        reconstructed = [network(f) for network, f in zip(self.reconstruction, plain, strict=True)]
        residual = [(f - r).square() for f, r in zip(plain, reconstructed, strict=True)]
        together = torch.cat([_resized(r, residual[0].shape[-2:]) for r in residual], 1)
        with torch.no_grad():
            chosen = selected_residuals(self.norm(together), self.residuals)
        picked = together.gather(1, chosen[:, :, None, None].expand(-1, -1, *together.shape[-2:]))
        return reconstructed, self.discriminator(picked, size)

    def _with_defects(self, image: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) with samples of the diffusion model in masks, and these (B, 1, H, W), bool."""
        count, _, height, width = image.shape
        mask = perlin_masks(count, height, width, source).to(image.device)
        if self.foreground:
            mask &= object_mask(image)
        drawn = torch.randint(len(self.samples), (count,), generator=source).to(image.device)
        texture = self.samples[drawn].float() / 255
        if texture.shape != image.shape:
            texture = F.interpolate(texture, (height, width), mode="bilinear", align_corners=False)
        return blended(image, mask, texture, source, OPACITY), mask


def channel_errors(corrupted: Tensor, normal: Tensor, mask: Tensor, region: Tensor | None = None) -> Tensor:
    """Return (C,): how badly each channel's squared difference, scaled to [0, 1], shows a mask (B, 1, H, W), bool.

    Features with and without defects are (B, C, h, w). The scale is that of the whole batch; the error is squared.
    """
    difference = (corrupted - normal).square()
    low, high = (extreme(difference, (0, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    truth = F.interpolate(mask.float(), difference.shape[-2:], mode="nearest")
    squares = within(((difference - low) / (high - low + 1e-4) - truth).square(), region)
    return squares.mean((0, *range(2, squares.dim())))


def selected_residuals(residual: Tensor, count: int) -> Tensor:
    """Return the channels (B, 2 count) of (B, C, h, w) with the highest maxima, and those with the highest means."""
    flat = residual.flatten(2)
    return torch.cat([value.topk(count, 1).indices for value in (flat.amax(2), flat.mean(2))], 1)


class _Discriminator(nn.Module):
    """From selected residuals (B, C, h, w) to two logits per pixel (B, 2, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stack = nn.ModuleList(
            nn.Sequential(
                *(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False)),
                *(nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False)),
            )
            for _ in range(2)
        )
        self.reducing = nn.Sequential(
            *(nn.ReLU(), _conv(channels, 128), nn.BatchNorm2d(128), nn.ReLU()),
            *(_conv(128, 32), nn.ReLU(), _conv(32, 8), nn.ReLU()),
        )
        self.last = nn.Sequential(_conv(8, 4), nn.ReLU(), _conv(4, 2))

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        for block in self.stack:
            x = x + block(x)
        x = self.reducing(x)
        return _resized(self.last(_resized(x, (2 * x.shape[-2], 2 * x.shape[-1]))), size)


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


def _resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _uniform(limits: tuple[float, float], source: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=source))
