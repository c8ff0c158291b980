"""A Gaussian descriptor of codes, trained with a decoder and a critic of interpolated codes.

Paper: Chen et al., "Deep One-Class Classification via Interpolated Gaussian Descriptor", AAAI 2022, 2101.10043. A
    linear layer maps the pooled features of a frozen network to a code z. The loss is that of the reconstruction, 0.85
    (1 - MS-SSIM) + 0.15 L1, plus the Gaussian anomaly classifier 1 - exp(-‖z - c‖² / σ), plus 0.1 of the critic's
    squared output for images decoded from interpolated codes α z + (1 - α) z', α from 0 to 0.5. The critic learns to
    predict α from these images, and 0 from x̂ + 0.2 (x - x̂). Centre c and scale σ are the mean code and the mean
    squared distance, at least 1; they are estimated again every ten epochs; components of c are at least 0.1 from 0.
    Adam (0, 0.9), rate 1e-4 with polynomial decay, 256 epochs of batches of 16. Score: half of the reconstruction loss
    plus half of the classifier. For MVTec AD a second model (``patches``) learns patches of 32 x 32 pixels, 16 apart,
    of two images a step. The score is then half of the whole image's, 0.1 of reconstruction and 0.9 of classifier,
    plus half of the worst patch's, 0.9 and 0.1; maps are averaged.
Differs:
    * The map is the authors': at each pixel 0.85 of the weighted 1 - SSIM of all scales plus 0.15 of the absolute
      difference. Without ``patches``, as in IM-IAD's benchmark, it is that of the whole image.
    * Patches are of the image at ``size``, 256 with the authors, and their encoder is that of the whole image. The
      authors' code takes the signed difference of patches where the paper has the absolute one.
    * Images are in [0, 1], for which SSIM's constants are; the authors normalise them by ImageNet's statistics.
    * Images are not mirrored in training, so that frozen features are computed once.
    * The decoder's batch norms are trained; the authors' code estimates c in evaluation mode and never leaves it.
    * The critic learns from the images of the same step, which the authors decode again after the decoder's step. It
      predicts the α of its own image; in the authors' code each output is compared with every α of the batch.
    * Below 256 pixels, MS-SSIM has four scales and smaller windows, as in the authors' model of patches.
Numbers: MVTec AD: image AUROC 93.4, pixel AUROC 93.1 (with both models); IM-IAD: image AUROC 80.5 (5 % noise).
    Measured here at size 32, width 8, 30 epochs, learning rate 0.002 (view of 128): image AUROC of bottle 98.9.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.preactivation import PreactivationBlock, ResampledConvolution
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import at_grid, average_pooled, image_score, mean_score
from iadbe.layers.features.similarity import FIVE_SCALES, FOUR_SCALES, ms_ssim, ssim_pyramid
from iadbe.layers.features.views import resized_images
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

SSIM_SHARE = 0.85  # of the reconstruction loss
INTERPOLATION = 0.1  # weight of the critic's output
MIXED = 0.2  # share of the image in what the critic takes for real
NEAREST = 0.1  # least distance of the components of c from 0
REFRESH = 10  # epochs between estimates of c and σ
GRID = 4  # side of the smallest feature map
PATCH, STRIDE = 32, 16  # side of a patch, and how far patches lie apart, in pixels
OF_WHOLE, OF_PATCH = 0.1, 0.9  # weight of the reconstruction in the scores where there are both models


class IGD(Detector):
    """Interpolated Gaussian descriptor."""

    paper = "Chen et al., Deep One-Class Classification via Interpolated Gaussian Descriptor, AAAI 2022, 2101.10043"
    year = 2022
    kind = "reconstruction"
    can = frozenset({"localise"})
    whole_image = "the critic of interpolated images is of whole images, as the GAN whose discriminator it is"
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet18.tv_in1k", "patches": True}
    added = {"patches": False, "patch_batch": 2}
    renamed_tensors = {name: f"whole.{name}" for name in ("code", "decoder", "critic", "centre", "scale")}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (4,),
        weights: str = "auto",
        size: int = 256,
        latent: int = 128,
        width: int = 64,
        epochs: int = 256,
        learning_rate: float = 1e-4,
        batch: int = 16,
        sigma: float = 4.0,
        patches: bool = False,
        patch_batch: int = 2,
    ) -> None:
        """Choose features, networks and training.

        Args:
            backbone: any timm model
            layers: layers whose features are averaged over the image and concatenated
            weights: a file, auto or none
            size: side in pixels of reconstructions: 32, 64, 128 or 256
            latent: dimension of the code z
            width: channels of decoder and critic next to the image; other layers have up to eight times as many
            epochs: passes over the training images
            learning_rate: of Adam, at the first step
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
            patches: train a second model, of patches of the image; size must be above 32
            patch_batch: images per step of the second model, which sees all their patches
        """
        super().__init__()
        if size not in (32, 64, 128, 256):
            raise BadConfig(f"size is 32, 64, 128 or 256, not {size}.")
        if min(latent, width, epochs, batch, patch_batch) < 1 or learning_rate <= 0:
            raise BadConfig("latent, width, epochs, batch, patch_batch and learning_rate must all be above 0.")
        if patches and size == PATCH:
            raise BadConfig(f"patches of {PATCH} pixels need a size above {PATCH}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.size, self.latent, self.width, self.patches = size, latent, width, patches
        self.epochs, self.learning_rate, self.sigma = epochs, learning_rate, sigma
        self.batch, self.patch_batch = batch, patch_batch
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        source = generator(rng, train.device)
        for model in (self.whole, self.local):
            if model is not None:
                self._train(model, train, rng, source)
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        loss, map_, distance = self._scored(batch, self.whole)
        if self.local is None:
            map_ = upsampled(map_, batch.image.shape[-2:], self.sigma, region=batch.region)
            return Prediction((loss + distance) / 2, map_)
        score = OF_WHOLE * loss + (1 - OF_WHOLE) * distance
        loss, of_patches, distance = self._scored(batch, self.local)
        side = (self.size - PATCH) // STRIDE + 1
        worst = (OF_PATCH * loss + (1 - OF_PATCH) * distance).view(-1, side, side)
        map_ = (map_ + joined(of_patches.view(-1, side * side, PATCH, PATCH), self.size)) / 2
        score = (score + image_score(worst, batch.region)) / 2
        return Prediction(score, upsampled(map_, batch.image.shape[-2:], self.sigma, region=batch.region))

    def _initialise(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        inputs = sum(self.backbone.channels)
        self.whole = _Descriptor(inputs, self.latent, self.width, self.size)
        self.local = _Descriptor(inputs, self.latent, self.width, PATCH) if self.patches else None

    def _images(self, batch: Batch, model: _Descriptor) -> Tensor:
        """Return what a model sees of a batch, (N, 3, S, S): whole images, or their patches, image by image."""
        image = resized_images(batch.image, self.size)
        return image if model is self.whole else cut(image)

    def _pooled(self, batch: Batch, model: _Descriptor) -> Tensor:
        """Return the mean features (N, D) of the same."""
        layers = self.backbone(batch if model is self.whole else self._images(batch, model))
        region = self._region(batch, model)
        return torch.cat([average_pooled(f, region) for f in layers], 1)

    def _region(self, batch: Batch, model: _Descriptor) -> Tensor | None:
        """Return which pixels of the same count, (N, S, S) bool; None: all."""
        counts = at_grid(batch.region, (self.size, self.size))
        return counts if counts is None or model is self.whole else cut(counts[:, None].float())[:, 0] > 0

    def _scored(self, batch: Batch, model: _Descriptor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a model says of its images: see :meth:`_Descriptor.scored`."""
        return model.scored(self._images(batch, model), self._pooled(batch, model), self._region(batch, model))

    def _train(self, model: _Descriptor, train: Images, rng: np.random.Generator, source: torch.Generator) -> None:
        """Train the model of whole images, or that of patches; ``source`` draws α."""
        images = self.batch if model is self.whole else self.patch_batch
        cached = FeatureCache(lambda batch: [self._pooled(batch, model).unflatten(0, (len(batch), -1))])
        features = torch.cat([cached(batch)[0] for batch in train.batches(images)])  # (images, patches or 1, D)
        together, features = images * features.shape[1], features.flatten(0, 1)
        model.estimate_centre(features)
        model.estimate_scale(features, together)
        parameters = [*model.code.parameters(), *model.decoder.parameters()]
        of_decoder = torch.optim.Adam(parameters, self.learning_rate, betas=(0.0, 0.9), weight_decay=1e-6)
        of_critic = torch.optim.Adam(model.critic.parameters(), self.learning_rate, betas=(0.0, 0.9))
        per_epoch = -(-len(train) // images)
        rates = [
            torch.optim.lr_scheduler.PolynomialLR(o, self.epochs * per_epoch, 0.9) for o in (of_decoder, of_critic)
        ]
        model.train()
        state = (of_decoder, of_critic, *rates, source)
        for batch in loop(train, epochs=self.epochs, batch=images, rng=rng, state=state):
            image, code = self._images(batch, model), model.code(cached(batch)[0].flatten(0, 1))
            share = torch.rand(len(code), 1, generator=source, device=code.device) / 2  # α
            fake = model.decoder(code)
            between = model.decoder(share * code + (1 - share) * code.flip(0))
            model.critic.requires_grad_(False)
            errors = model.reconstruction_loss(image, fake, self._region(batch, model))[0]
            loss = (errors + model.distance(code)).mean()
            step(of_decoder, loss + INTERPOLATION * model.critic(between).square().mean())
            model.critic.requires_grad_(True)
            step(of_critic, model.critic_loss(image, fake.detach(), between.detach(), share), shown=False)
            for rate in rates:
                rate.step()
            if rates[0].last_epoch % (REFRESH * per_epoch) == 0:
                model.estimate_scale(features, together)
                model.estimate_centre(features)


class _Descriptor(nn.Module):
    """Code, decoder and critic of images or patches of one size, with centre and scale of the codes."""

    centre: Tensor
    scale: Tensor

    def __init__(self, inputs: int, latent: int, width: int, size: int) -> None:
        """Make untrained networks, for so many pooled features; torch's generator draws their weights."""
        super().__init__()
        self.exponents = FIVE_SCALES if size >= 256 else FOUR_SCALES
        coarsest = size // 2 ** (len(self.exponents) - 1)
        self.window = min(11, coarsest - 1 + coarsest % 2)  # odd, and smaller than the coarsest image
        channels = [width * min(8, 2**i) for i in range((size // (4 * GRID)).bit_length())]
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(()))
        self.code = nn.Linear(inputs, latent)
        self.decoder = _decoder(latent, channels[::-1])
        self.critic = _critic(channels)

    @torch.no_grad()
    def estimate_centre(self, features: Tensor) -> None:
        """Set c to the mean code, with no component near 0, which zero weights would match."""
        centre = self.code(features).mean(0)
        near = centre.abs() < NEAREST
        self.centre = torch.where(near, NEAREST * centre.sign(), centre)

    @torch.no_grad()
    def estimate_scale(self, features: Tensor, together: int) -> None:
        """Set σ to the mean over batches of so many rows of the mean squared distance from c, each at least 1."""
        squared = (self.code(features) - self.centre).square().sum(1)
        self.scale = torch.stack([part.mean().clamp(min=1) for part in squared.split(together)]).mean()

    def scored(self, image: Tensor, features: Tensor, region: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction loss (N,), that of each pixel (N, S, S), and the classifier (N,)."""
        code = self.code(features)
        return *self.reconstruction_loss(image, self.decoder(code), region), self.distance(code)

    def distance(self, code: Tensor) -> Tensor:
        """Return the Gaussian anomaly classifier 1 - exp(-‖z - c‖² / σ) of codes (N, latent): (N,)."""
        return 1 - (-(code - self.centre).square().sum(1) / self.scale).exp()

    def reconstruction_loss(self, image: Tensor, fake: Tensor, region: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss of each image (N,) and of each pixel (N, S, S)."""
        pyramid = ssim_pyramid(image, fake, len(self.exponents), self.window)
        difference = (image - fake).abs()
        similarity = ms_ssim(pyramid, self.exponents, region)
        loss = SSIM_SHARE * (1 - similarity) + (1 - SSIM_SHARE) * mean_score(difference, region)
        map_ = (1 - SSIM_SHARE) * difference
        for (similar, _), exponent in zip(pyramid, self.exponents, strict=True):
            map_ = map_ + SSIM_SHARE * exponent * (1 - F.interpolate(similar.relu(), image.shape[-2:]))
        return loss, map_.mean(1)

    def critic_loss(self, image: Tensor, fake: Tensor, between: Tensor, share: Tensor) -> Tensor:
        """Return the critic's loss (): images ``between`` should give their α, ``share`` (N, 1), real ones 0."""
        of_real = self.critic(fake + MIXED * (image - fake)).square().mean()
        return (self.critic(between) - share).square().mean() + of_real


def cut(image: Tensor) -> Tensor:
    """Return the patches (B · P, 3, 32, 32) of images (B, 3, S, S), row by row; their sides are multiples of 32."""
    patches = F.unfold(image, PATCH, stride=STRIDE)  # (B, 3 · 32 · 32, P)
    return patches.transpose(1, 2).reshape(-1, image.shape[1], PATCH, PATCH)


def joined(patches: Tensor, size: int) -> Tensor:
    """Return maps (B, size, size): the mean at each pixel of the patches (B, P, 32, 32) over it."""
    flat = patches.flatten(2).transpose(1, 2)  # (B, 32 · 32, P)
    sums, counts = (F.fold(x, size, PATCH, stride=STRIDE)[:, 0] for x in (flat, torch.ones_like(flat[:1])))
    return sums / counts


def _decoder(latent: int, channels: list[int]) -> nn.Sequential:
    """Return a network from codes (B, latent) to images, with these channels from 8 x 8 to half of the image's size."""
    layers = [nn.Linear(latent, channels[0] * GRID * GRID), nn.Unflatten(1, (channels[0], GRID, GRID))]
    layers.append(ResampledConvolution(channels[0], channels[0], 3, "double"))
    layers += [PreactivationBlock(before, after, "double") for before, after in pairwise(channels)]
    last = ResampledConvolution(channels[-1], 3, 5, "double")
    return nn.Sequential(*layers, nn.BatchNorm2d(channels[-1]), nn.ReLU(), last)


def _critic(channels: list[int]) -> nn.Sequential:
    """Return a network from images to (B, 1), with these channels from half of the image's size to 8 x 8."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 5, 2, 2)]
    layers += [PreactivationBlock(before, after, "halve", "layer") for before, after in pairwise(channels)]
    layers += [nn.Conv2d(channels[-1], channels[-1], 3, 2, 1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels[-1] * GRID * GRID, 1))
