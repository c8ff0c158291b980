"""A network repairs synthetic defects, a second one segments them; the score is its probability of a defect.

Paper: Zavrtanik et al., "DRAEM - A discriminatively trained reconstruction embedding for surface anomaly detection",
    ICCV 2021, 2108.07610. In half of the training images a texture, changed by three of ten augmentations, is blended
    into a region of Perlin noise. The reconstructive network, an autoencoder without skip connections, makes the image
    without the defect (squared error and SSIM); the discriminative network, a U-Net, sees both and predicts the mask
    (focal loss, γ = 2). Both are trained together. The map is the probability of a defect; the image score is the
    maximum of the map after a mean over 21 x 21 pixels. Constants are those of the authors' code: opacities of 0.2 to 1
    (in the paper: 0.1 to 1), and 30 % of the training images rotated by up to 90°.
Differs:
    * Without a folder of textures they are drawn. The paper takes the Describable Textures Dataset.
    * Masks are of rotated noise; the authors rotate the noise as an image, so that its corners are empty.
    * SSIM mirrors the image at its border; the authors pad it with zeros.
    * The focal loss has no label smoothing (1e-5 in the authors' code).
    * A step always has ``batch`` images: if fewer are left, they are repeated with other defects.
Numbers: MVTec AD at 256: image AUROC 98.0, pixel AUROC 97.3, pixel AP 68.4. All categories together (ADer): image
    AUROC 54.5.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.unet import UNet, initialised_small
from iadbe.layers.features.region import image_score, masked, moved_alike, within
from iadbe.layers.features.similarity import ssim
from iadbe.layers.synthetic.augmentations import augmented, rotated
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.textures import TextureSource
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.types import Prediction

DEFECTIVE = 0.5  # share of the training images that get a synthetic defect
OPACITY = (0.2, 1.0)  # of a texture
TURN = 90.0  # degrees, largest rotation of a training image
WINDOW = 21  # pixels: side of the mean before the maximum of the map


class DRAEM(Detector):
    """Reconstruction and segmentation, trained on synthetic defects."""

    paper = "Zavrtanik et al., DRAEM: a discriminatively trained reconstruction embedding, ICCV 2021, arXiv 2108.07610"
    year = 2021
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}

    def __init__(
        self,
        width: int = 128,
        textures: str = "",
        rotated: float = 0.3,
        epochs: int = 700,
        learning_rate: float = 1e-4,
        batch: int = 8,
    ) -> None:
        """Set up untrained networks.

        Args:
            width: channels of the reconstructive network at full size; the discriminative one has half as many
            textures: a folder of texture images; empty: textures are drawn
            rotated: share of the training images that are rotated, from 0 to 1
            epochs: passes over the training images
            learning_rate: of Adam; a fifth of it after 80 % of the steps, a 25th after 90 %
            batch: images per step
        """
        super().__init__()
        if width < 2 or min(epochs, batch) < 1 or learning_rate <= 0 or not 0 <= rotated <= 1:
            raise BadConfig(
                "width must be at least 2, epochs, batch and learning_rate above 0, and rotated from 0 to 1."
            )
        self.width, self.rotated, self.epochs = width, rotated, epochs
        self.learning_rate, self.batch = learning_rate, batch
        self.textures = TextureSource(textures, shuffled=0.0, recolour_foreign=False)
        self._reset()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._reset()
        self.to(train.device).train()
        source = generator(rng)
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        steps = -(-len(train) // self.batch) * self.epochs
        milestones = [max(1, round(share * steps)) for share in (0.8, 0.9)]
        rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.2)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, rate, source)):
            step(optimizer, self._loss(*self._with_defects(batch.taken(batch.cycled(self.batch)), source)))
            rate.step()
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        map_ = self._networks(batch.image)[1].sigmoid()
        means = F.avg_pool2d(masked(map_, batch.region)[:, None], WINDOW, stride=1, padding=WINDOW // 2)[:, 0]
        return Prediction(image_score(means, batch.region), map_)

    def _reset(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        w = self.width
        mirrored = ((8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w), (w, w))
        reconstructive = UNet(3, 3, (w, 2 * w, 4 * w, 8 * w, 8 * w), mirrored, skips=False)
        w //= 2
        up = ((8 * w, 8 * w), (4 * w, 4 * w), (2 * w, 2 * w), (w, w), (w, w))
        discriminative = UNet(6, 2, (w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w), up)
        self.reconstructive, self.discriminative = (
            initialised_small(network).to(memory_format=torch.channels_last)  # quicker on processors
            for network in (reconstructive, discriminative)
        )

    def _networks(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return images without defects (B, 3, H, W), and the logits of a defect at each pixel (B, H, W)."""
        image = image.contiguous(memory_format=torch.channels_last)
        repaired = self.reconstructive(image)
        normal, defect = self.discriminative(torch.cat([repaired, image], 1)).unbind(1)
        return repaired, defect - normal  # the softmax of two channels is the sigmoid of their difference

    def _loss(self, image: Tensor, corrupted: Tensor, mask: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the loss () of images without and with synthetic defects (B, 3, H, W), with masks (B, H, W)."""
        repaired, logits = self._networks(corrupted)
        squares = F.mse_loss(within(repaired, region), within(image, region))
        reconstruction = squares + 1 - within(ssim(repaired, image), region).mean()
        return reconstruction + focal_loss(within(logits, region), within(mask, region), gamma=2.0)

    def _with_defects(self, batch: Batch, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return images, some rotated; the same with defects in half of them; masks (B, H, W), bool; the region."""
        count, _, height, width = batch.image.shape
        drawn = torch.rand(2, count, generator=source)
        turned, defective = (drawn < torch.tensor([[self.rotated], [DEFECTIVE]])).to(batch.image.device)

        def turn(image: Tensor) -> Tensor:
            return torch.where(turned.view(-1, 1, 1, 1), rotated(image, TURN, source), image)

        image, region = moved_alike(turn, batch.image, batch.region)
        mask = perlin_masks(count, height, width, source).to(image.device) & defective.view(-1, 1, 1, 1)
        corrupted = image.clone()
        if len(filled := mask.flatten(1).any(1).nonzero()[:, 0]):
            texture = augmented(self.textures(image[filled], source).cpu(), source).to(image.device)
            corrupted[filled] = blended(image[filled], mask[filled], texture, source, OPACITY)
        return image, corrupted, mask[:, 0], region
