"""Anomalies to train on beside normal images: those that are labelled, or synthetic ones.

Paper: synthetic anomalies are DRAEM's (Zavrtanik et al., ICCV 2021, 2108.07610): textures within Perlin noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iadbe.data.images import Images
from iadbe.errors import BadConfig
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.perlin import nonempty_perlin_masks
from iadbe.layers.synthetic.textures import TextureSource


class AnomalousImages(NamedTuple):
    """Images with defects, and where these are."""

    image: Tensor  # (B, 3, H, W) in [0, 1]
    mask: Tensor  # (B, 1, H, W) bool; none where it is not known
    known: Tensor  # (B,) bool: whether the mask says where the defect is
    region: Tensor | None = None  # (B, H, W) bool: which pixels count; None: all


class LabelledAnomalies:
    """Draws from the training images that are labelled anomalous."""

    def __init__(self, train: Images) -> None:
        """Find them. Raises :class:`BadConfig` if there is none."""
        self.images = train.anomalous()
        if not len(self.images):
            raise BadConfig(
                "no training image is labelled anomalous. The settings semi and supervised label some; with "
                "anomalies=synthetic, this detector makes its own."
            )

    def __call__(self, normal: Tensor, generator: torch.Generator, region: Tensor | None = None) -> AnomalousImages:
        """Return as many labelled anomalies as there are normal images (B, 3, H, W), drawn with replacement."""
        chosen = torch.randint(len(self.images), (len(normal),), generator=generator).tolist()
        batch = next(self.images.read([np.array(chosen)]))
        _, mask, known = self.images.truth(batch)
        return AnomalousImages(batch.image, mask, known, batch.region)


class SyntheticAnomalies:
    """Blends textures into normal images, in regions of Perlin noise."""

    def __init__(self, textures: TextureSource) -> None:
        self.textures = textures

    def __call__(self, normal: Tensor, generator: torch.Generator, region: Tensor | None = None) -> AnomalousImages:
        """Return normal images (B, 3, H, W) with synthetic defects, and their region; ``generator`` is on the CPU."""
        count, _, height, width = normal.shape
        mask = nonempty_perlin_masks(count, height, width, generator).to(normal.device)
        image = blended(normal, mask, self.textures(normal, generator), generator)
        return AnomalousImages(image, mask, torch.ones(count, dtype=torch.bool, device=normal.device), region)


def labels_needed(kind: str) -> frozenset[str]:
    """Return what a detector needs of the data for such anomalies: labels, or nothing more.

    Raises :class:`BadConfig` unless ``kind`` is "labelled" or "synthetic".
    """
    if kind not in ("labelled", "synthetic"):
        raise BadConfig(f"anomalies is labelled or synthetic, not {kind!r}.")
    return frozenset({"labels"}) if kind == "labelled" else frozenset()


def anomaly_source(kind: str, train: Images, textures: str = "") -> LabelledAnomalies | SyntheticAnomalies:
    """Return the source of anomalies: "labelled", or "synthetic" with a folder of ``textures`` or drawn ones."""
    return LabelledAnomalies(train) if kind == "labelled" else SyntheticAnomalies(TextureSource(textures))
