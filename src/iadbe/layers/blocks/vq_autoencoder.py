"""An autoencoder with two codebooks: of the image's coarse and of its fine structure.

Paper: Razavi et al., "Generating Diverse High-Fidelity Images with VQ-VAE-2", NeurIPS 2019, 1906.00446, as in DSR
    (Zavrtanik et al., ECCV 2022, 2208.01521): features on an eighth of the grid are quantised, and with them features
    on a quarter of the grid; the decoder sees both.

Images are in [0, 1]; their channels are in the order blue, green, red, as the weights of DSR's authors expect.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.blocks.codebook import Codebook
from iadbe.layers.features.region import within

STRIDE = 8  # both sides of an image are multiples of it

# parts of the authors' names of tensors -> ours
PUBLISHED = {
    "_encoder_b": "fine",
    "_encoder_t": "coarse",
    "_pre_vq_conv_top": "coarse_projection",
    "_pre_vq_conv_bot": "fine_projection",
    "_vq_vae_top": "coarse_codes",
    "_vq_vae_bot": "fine_codes",
    "_decoder_b": "decoder",
    "upsample_t": "doubling",
    "_embedding.weight": "codes",
    "_ema_cluster_size": "sizes",
    "_ema_w": "sums",
}


class VQAutoencoder(nn.Module):
    """Encoder, two codebooks and decoder."""

    def __init__(self, width: int = 128, codes: int = 4096) -> None:
        """Make the network with random weights.

        Args:
            width: channels of the features and of the codes, even
            codes: number of codes in each codebook
        """
        super().__init__()
        half = width // 2
        self.fine = nn.Sequential(
            *(nn.Conv2d(3, half, 4, 2, 1), nn.ReLU(), nn.Conv2d(half, width, 4, 2, 1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, 1, 1), ResidualStack(width)),
        )
        self.coarse = nn.Sequential(
            *(nn.Conv2d(width, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()),
            ResidualStack(width),
        )
        self.coarse_projection = nn.Conv2d(width, width, 1)
        self.fine_projection = nn.Conv2d(2 * width, width, 1)
        self.coarse_codes, self.fine_codes = Codebook(codes, width), Codebook(codes, width)
        self.doubling = nn.ConvTranspose2d(width, width, 4, 2, 1)
        self.decoder = image_decoder(2 * width, width)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised coarse (B, D, H / 8, W / 8) and fine features (B, D, H / 4, W / 4) of images."""
        features = self.fine(image)
        coarse = self.coarse_codes(self.coarse_features(features))
        return coarse, self.fine_codes(self.fine_features(features, coarse))

    def coarse_features(self, features: Tensor) -> Tensor:
        """Return coarse features before quantisation, given those of ``self.fine``."""
        return self.coarse_projection(self.coarse(features))

    def fine_features(self, features: Tensor, coarse: Tensor) -> Tensor:
        """Return fine features before quantisation, given those of ``self.fine`` and quantised coarse ones."""
        return self.fine_projection(torch.cat([features, self.doubling(coarse)], 1))

    def joined(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Return what a decoder sees (B, 2 D, H / 4, W / 4), given quantised coarse and fine features."""
        return torch.cat([self.doubling(coarse), fine], 1)

    def loss(self, image: Tensor, source: torch.Generator, region: Tensor | None = None) -> Tensor:
        """Return the loss () of images (B, 3, H, W): squared error and commitments. The codebooks learn.

        ``source``, on the CPU, draws the first codes.
        """
        features = self.fine(image)
        coarse, first = self.coarse_codes.learn(self.coarse_features(features), source)
        fine, second = self.fine_codes.learn(self.fine_features(features, coarse), source)
        decoded = self.decoder(self.joined(coarse, fine))
        return F.mse_loss(within(decoded, region), within(image, region)) + first + second


class ResidualStack(nn.Module):
    """Two residual blocks and a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(width, width // 2, 3, 1, 1, bias=False), nn.ReLU()),
                nn.Conv2d(width // 2, width, 1, bias=False),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, h, w) to the same shape."""
        for branch in self.branches:
            x = x.relu()  # on the shortcut too: the ReLU in the authors' code overwrites its input
            x = x + branch(x)
        return x.relu()


def image_decoder(inputs: int, width: int) -> nn.Sequential:
    """Return what makes images (B, 3, 4 h, 4 w) of (B, inputs, h, w)."""
    half = width // 2
    return nn.Sequential(
        *(nn.Conv2d(inputs, width, 3, 1, 1), ResidualStack(width)),
        *(nn.ConvTranspose2d(width, half, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(half, 3, 4, 2, 1)),
    )


def published_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the authors' file by their names in :class:`VQAutoencoder`."""
    layers = {  # of the sequences: the authors name convolutions one by one
        "fine": {"_conv_1": "0", "_conv_2": "2", "_conv_3": "4", "_residual_stack": "5"},
        "coarse": {"_conv_1": "0", "_conv_2": "2", "_residual_stack": "4"},
        "decoder": {"_conv_1": "0", "_residual_stack": "1", "_conv_trans_1": "2", "_conv_trans_2": "4"},
    }
    found = {"coarse_codes.started": torch.tensor(True), "fine_codes.started": torch.tensor(True)}
    for name, value in state.items():
        for theirs, ours in PUBLISHED.items():
            name = name.replace(theirs, ours)
        part, _, rest = name.partition(".")
        for theirs, ours in layers.get(part, {}).items():
            rest = rest.replace(theirs, ours)
        # a branch is their ReLU, convolution, ReLU, convolution, without the first
        rest = rest.replace("_layers", "branches").replace("_block.1", "0").replace("_block.3", "2")
        found[f"{part}.{rest}"] = value.detach()
    return found
