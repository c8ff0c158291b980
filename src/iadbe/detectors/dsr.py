"""Defects made of wrong codes are undone in feature space, and a network segments what has changed.

Paper: Zavrtanik et al., "DSR - A dual subspace re-projection network for surface anomaly detection", ECCV 2022,
    2208.01521. A frozen autoencoder quantises an image's features at two resolutions (VQ-VAE-2). In a region of Perlin
    noise, codes are replaced by others that are not among the nearest twentieth. Two networks (subspace restriction)
    restore the normal features of both resolutions, which an image decoder of the object makes into an image; a U-Net
    compares it with the general decoder's image and predicts the mask. When these are trained, a second U-Net learns to
    refine the mask, from regions of one colour in the image. The map is the refined mask; the image score is the
    maximum of the first mask after a mean over 21 x 21 pixels. Constants are those of the authors' code, which also
    keeps the learning rate of the last network constant.
Differs:
    * The authors' autoencoder is pre-trained on ImageNet; ``weights`` takes their file. Without it the autoencoder is
      trained first, on the training images and as many textures, in half as many steps. The result says which.
    * Codes are replaced by what is nearest to the unquantised features of masked positions only, and masks are of
      rotated noise; the authors rotate the noise as an image, so that its corners are empty.
    * The focal loss has no label smoothing (1e-5 in the authors' code).
    * The map is of the whole image. The authors evaluate its central 224 of 256 pixels.
    * A view whose side is no multiple of 8 is resized to the next one.
Numbers: MVTec AD at 256: image AUROC 98.2, pixel AP 70.2; KSDD2: AP 87.2 (pre-trained on ImageNet).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.codebook import Codebook
from iadbe.layers.blocks.unet import UNet, initialised_small, stage
from iadbe.layers.blocks.vq_autoencoder import STRIDE, VQAutoencoder, image_decoder, published_tensors
from iadbe.layers.features.region import image_score, joined, masked, moved_alike, within
from iadbe.layers.synthetic.augmentations import rotated
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import perlin_masks
from iadbe.layers.synthetic.textures import TextureSource
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.layers.training.losses import focal_loss
from iadbe.networks.backbone import read_state, state_fingerprint
from iadbe.networks.grid import on_multiple
from iadbe.types import Prediction

DEFECTIVE = 0.5  # share of the training images that get a synthetic defect
NEAREST = 0.05  # share of the codes, nearest to a feature, that never replace it
STRENGTH = (0.2, 1.0)  # share of the codes, nearest to a feature, from which its replacement is drawn
OPACITY = (0.2, 1.0)  # of a coloured region
TURN = 90.0  # degrees, largest rotation of a training image
TURNED_FEATURES, TURNED_IMAGES = 0.4, 0.3  # shares of the images that are rotated, with defects of either kind
IMAGE_WEIGHT = 10.0  # of the squared error of the image
PRETRAINING, UPSAMPLING = 0.5, 0.5  # steps of the autoencoder and of the upsampling network, as shares of ``steps``
PRETRAINING_TIME, DETECTION_TIME = 0.25, 0.67  # shares of what is left of a time budget, at most
WINDOW = 21  # pixels: side of the mean before the maximum of the mask
OWN_AUTOENCODER = "its autoencoder was trained on these images and textures; the paper's is pre-trained (weights=FILE)."
SMALLEST = 40  # pixels: side of a view; instance norms need two positions after the halvings


class DSR(Detector):
    """Restoration of quantised features, trained on defects made of codes."""

    paper = "Zavrtanik et al., DSR: a dual subspace re-projection network, ECCV 2022, arXiv 2208.01521"
    year = 2022
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    weight_files = {"weights": "vq_model_pretrained_128_4096.pckl of VitjanZ/DSR_anomaly_detection"}

    given: Tensor

    def __init__(
        self,
        weights: str = "auto",
        width: int = 128,
        codes: int = 4096,
        textures: str = "",
        steps: int = 100_000,
        learning_rate: float = 2e-4,
        batch: int = 8,
    ) -> None:
        """Set up untrained networks.

        Args:
            weights: a file with the authors' pre-trained autoencoder; auto or none: it is trained first
            width: channels of features and codes; the U-Nets have half as many at full size
            codes: number of codes at each resolution
            textures: a folder of texture images that the autoencoder is trained on; empty: they are drawn
            steps: training steps of the networks that detect; half as many before, of the autoencoder, and after, of
                the upsampling network
            learning_rate: of Adam; a tenth of it in the last fifth of the steps
            batch: images per step
        """
        super().__init__()
        if width < 2 or width % 2 or min(steps, batch) < 1 or codes < 2 or learning_rate <= 0:
            raise BadConfig("width must be even, codes at least 2, and steps, batch and learning_rate above 0.")
        self.width, self.codes, self.steps, self.batch = width, codes, steps, batch
        self.learning_rate = learning_rate
        self.textures = TextureSource(textures, shuffled=0.0, recolour_foreign=False)
        self.register_buffer("given", torch.tensor(weights not in ("", "auto", "none")))
        self.autoencoder = VQAutoencoder(width, codes)
        if self.given:
            self._load_autoencoder(Path(weights))
        self._reset()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        if min(train.view.shape) < SMALLEST:
            raise BadConfig(f"dsr needs a view of at least {SMALLEST} x {SMALLEST} pixels, not {train.view}.")
        source = generator(rng)
        with seeded(rng):
            if not self.given:
                self.autoencoder = VQAutoencoder(self.width, self.codes)
            self._reset()
        self.to(train.device).train()
        if not self.given:
            progress.note(OWN_AUTOENCODER)
            with progress.budget_share(PRETRAINING_TIME):
                self._train_autoencoder(train, source, rng)
        self.autoencoder.eval().requires_grad_(False)
        with progress.budget_share(DETECTION_TIME):
            self._train_detection(train, source, rng)
        self._train_upsampling(train, source, rng)
        self.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.eval()
        size = batch.image.shape[-2:]
        coarse, fine = self.autoencoder(_prepared(batch.image))
        pair = self._images(coarse, fine)
        logits = self.detection(pair)
        probability = F.interpolate(logits.softmax(1)[:, 1:], size, mode="bilinear", align_corners=False)
        means = F.avg_pool2d(masked(probability, batch.region), WINDOW, stride=1, padding=WINDOW // 2)[:, 0]
        refined = self._refined(pair, logits)[:, None].sigmoid()
        map_ = F.interpolate(refined, size, mode="bilinear", align_corners=False)[:, 0]
        return Prediction(image_score(means, batch.region), map_)

    def weights(self) -> str:
        """Return the fingerprint of the autoencoder, and on what it was trained."""
        trained = "pre-trained, from a file" if self.given else "trained on the training images and textures"
        return f"quantised autoencoder: {state_fingerprint(self.autoencoder.state_dict())}, {trained}"

    def _load_autoencoder(self, file: Path) -> None:
        """Take the weights of the authors' file."""
        tensors = published_tensors(read_state(file))
        wanted = self.autoencoder.state_dict()
        wrong = [n for n, value in wanted.items() if n not in tensors or tensors[n].shape != value.shape]
        if wrong:
            raise BadConfig(
                f"{file} does not hold DSR's autoencoder of width {self.width} with {self.codes} codes: "
                f"{', '.join(wrong[:3])}."
            )
        self.autoencoder.load_state_dict({n: tensors[n] for n in wanted})
        self.autoencoder.requires_grad_(False)

    def _reset(self) -> None:
        """Make untrained networks; torch's generator draws their weights."""
        w, half, norm = self.width, self.width // 2, nn.InstanceNorm2d
        self.coarse_restriction, self.fine_restriction = (
            UNet(w, w, (w, 2 * w, 4 * w), ((2 * w, 2 * w), (w, w)), skips=False, norm=norm) for _ in range(2)
        )
        self.object_decoder = initialised_small(
            nn.Sequential(
                *(stage(2 * w, 2 * w, 4 * w, norm), nn.MaxPool2d(2), stage(4 * w, 4 * w, 8 * w, norm), nn.MaxPool2d(2)),
                *(nn.Conv2d(8 * w, half, 1), nn.ConvTranspose2d(half, half, 4, 2, 1), nn.ReLU()),
                *(nn.ConvTranspose2d(half, half, 4, 2, 1), nn.ReLU(), image_decoder(half, w)),
            )
        )
        down, up = (half, w, 2 * w, 2 * w), ((2 * w, 2 * w), (w, w), (half, half))
        self.detection = initialised_small(UNet(6, 2, down, up, norm=norm))
        self.upsampling = UNet(8, 2, down, up, norm=norm)
        self.to(memory_format=torch.channels_last)  # quicker on processors

    def _train_autoencoder(self, train: Images, source: torch.Generator, rng: np.random.Generator) -> None:
        """Train the autoencoder on images and as many textures."""
        optimizer = torch.optim.Adam(self.autoencoder.parameters(), self.learning_rate)
        steps = max(1, round(PRETRAINING * self.steps))
        for batch in loop(train, steps=steps, batch=-(-self.batch // 2), rng=rng, state=(optimizer, source)):
            texture = self.textures(batch.image, source)
            region = joined((batch.image, batch.region), (texture, None))
            step(optimizer, self.autoencoder.loss(_prepared(torch.cat([batch.image, texture])), source, region))

    def _train_detection(self, train: Images, source: torch.Generator, rng: np.random.Generator) -> None:
        """Train what restores features, makes the image of them and predicts the mask."""
        trained = (self.coarse_restriction, self.fine_restriction, self.object_decoder, self.detection)
        optimizer = torch.optim.Adam([p for network in trained for p in network.parameters()], self.learning_rate)
        rate = torch.optim.lr_scheduler.MultiStepLR(optimizer, [max(1, round(0.8 * self.steps))], 0.1)
        state = (optimizer, rate, source)
        for batch in loop(train, steps=self.steps, batch=self.batch, rng=rng, state=state):
            image, mask, region = _prepared_with_mask(batch, TURNED_FEATURES, source)
            step(optimizer, self._detection_loss(image, mask, source, region))
            rate.step()

    def _train_upsampling(self, train: Images, source: torch.Generator, rng: np.random.Generator) -> None:
        """Train the refinement of the mask on regions of one colour, with all other networks frozen."""
        optimizer = torch.optim.Adam(self.upsampling.parameters(), self.learning_rate)
        steps = max(1, round(UPSAMPLING * self.steps))
        for batch in loop(train, steps=steps, batch=self.batch, rng=rng, state=(optimizer, source)):
            image, mask, region = _prepared_with_mask(batch, TURNED_IMAGES, source)
            colour = torch.rand(len(image), 3, 1, 1, generator=source).to(image)
            with torch.no_grad():
                pair = self._images(*self.autoencoder(blended(image, mask, colour, source, OPACITY)))
                logits = self.detection(pair)
            refined = within(self._refined(pair, logits), region)
            step(optimizer, focal_loss(refined, within(mask[:, 0], region), gamma=2.0))

    def _detection_loss(
        self, image: Tensor, mask: Tensor, source: torch.Generator, region: Tensor | None = None
    ) -> Tensor:
        """Return the loss () of images (B, 3, H, W), with defects in the features of masked positions (B, 1, H, W)."""
        with torch.no_grad():
            (coarse, fine), (bad_coarse, bad_fine), seen = self._with_defects(image, mask, source)
            general = self.autoencoder.decoder(self.autoencoder.joined(bad_coarse, bad_fine))
        restored_coarse, restored_fine = self.coarse_restriction(bad_coarse), self.fine_restriction(bad_fine)
        repaired = self._repaired(restored_coarse, restored_fine)
        logits = self.detection(torch.cat([repaired.detach(), general], 1))
        pairs = ((restored_coarse, coarse), (restored_fine, fine), (repaired, image))
        of_coarse, of_fine, of_image = (F.mse_loss(within(a, region), within(b, region)) for a, b in pairs)
        normal, defect = logits.unbind(1)
        detection = focal_loss(within(defect - normal, region), within(seen[:, 0], region), 2.0)
        return of_coarse + of_fine + IMAGE_WEIGHT * of_image + detection

    def _with_defects(
        self, image: Tensor, mask: Tensor, source: torch.Generator
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """Return quantised coarse and fine features, the same with defects, and where the defects are (B, 1, H, W).

        Half of the defects are in both resolutions, a quarter in either alone.
        """
        model, count = self.autoencoder, len(image)
        low, high = STRENGTH
        strength = low + (high - low) * torch.rand(2, count, generator=source)
        both, coarse_alone = (torch.rand(2, count, 1, 1, 1, generator=source) < 0.5).to(image.device)
        features = model.fine(image)
        raw = model.coarse_features(features)
        coarse = model.coarse_codes(raw)
        fine = model.fine_codes(model.fine_features(features, coarse))
        changed = with_wrong_codes(model.coarse_codes, raw, coarse, mask, strength[0], source)
        raw = model.fine_features(features, torch.where(both, changed, coarse))
        found = model.fine_codes(raw)
        bad_fine = with_wrong_codes(model.fine_codes, raw, found, mask, strength[1], source)
        bad = torch.where(both | coarse_alone, changed, coarse), torch.where(both | ~coarse_alone, bad_fine, found)
        sizes = (coarse, fine)
        cells = [F.interpolate(_cells(mask, f).float(), mask.shape[-2:]) > 0 for f in sizes]
        return (coarse, fine), bad, torch.where(both | coarse_alone, *cells)

    def _repaired(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the image of the object (B, 3, H, W), given restored features before quantisation."""
        model = self.autoencoder
        return self.object_decoder(model.joined(model.coarse_codes(coarse), model.fine_codes(fine)))

    def _images(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return the image of the object and that of the general decoder (B, 6, H, W), given quantised features."""
        repaired = self._repaired(self.coarse_restriction(coarse), self.fine_restriction(fine))
        return torch.cat([repaired, self.autoencoder.decoder(self.autoencoder.joined(coarse, fine))], 1)

    def _refined(self, pair: Tensor, logits: Tensor) -> Tensor:
        """Return refined logits (B, H, W), given both images (B, 6, H, W) and two logits per pixel (B, 2, H, W)."""
        normal, defect = self.upsampling(torch.cat([pair, logits.softmax(1)], 1)).unbind(1)
        return defect - normal  # the softmax of two channels is the sigmoid of their difference


@torch.no_grad()
def with_wrong_codes(
    book: Codebook, features: Tensor, quantised: Tensor, mask: Tensor, strength: Tensor, source: torch.Generator
) -> Tensor:
    """Return quantised features (B, D, h, w) with random codes where any pixel of a cell is masked.

    Args:
        book: the codes
        features: before quantisation, shaped like ``quantised``
        quantised: the same after it
        mask: (B, 1, H, W), bool
        strength: (B,), share of the codes, those nearest to a feature, from which its replacement is drawn
        source: draws them, on the CPU
    """
    result, count = quantised.clone(), len(book.codes)
    skipped = int(NEAREST * count)
    for one, raw, cells, share in zip(result, features, _cells(mask, features)[:, 0], strength.tolist(), strict=True):
        if len(rows := raw[:, cells].T):
            kept = max(1, min(int(share * count) + 1, count - 1))
            rank = torch.randint(skipped, kept, (len(rows), 1), generator=source).to(rows.device)
            order = book.distances(rows).argsort(1)
            one[:, cells] = book.codes[order.gather(1, rank)[:, 0]].T
    return result


def _cells(mask: Tensor, like: Tensor) -> Tensor:
    """Return on the grid of ``like`` where any pixel of mask (B, 1, H, W) is set: (B, 1, h, w), bool."""
    return F.max_pool2d(mask.float(), mask.shape[-1] // like.shape[-1]) > 0


def _prepared(image: Tensor) -> Tensor:
    """Return images (B, 3, H, W) with blue first, on sides that the autoencoder and one further halving divide."""
    return on_multiple("dsr", image, 2 * STRIDE).flip(1).contiguous(memory_format=torch.channels_last)


def _prepared_with_mask(batch: Batch, share: float, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return prepared images, a share of them rotated, masks (B, 1, H, W), half of which are empty, the region."""
    drawn = torch.rand(2, len(batch), 1, 1, 1, generator=source) < torch.tensor([share, DEFECTIVE]).view(2, 1, 1, 1, 1)
    turned, defective = drawn.to(batch.image.device)
    image, region = moved_alike(lambda x: torch.where(turned, rotated(x, TURN, source), x), batch.image, batch.region)
    image = _prepared(image)
    return image, perlin_masks(len(image), *image.shape[-2:], source).to(image.device) & defective, region
