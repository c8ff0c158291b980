"""Textures that fill synthetic defects: from other images, procedural, or shuffled tiles of the image itself.

Paper: Zavrtanik et al., "DRAEM", ICCV 2021, 2108.07610 (textures of other images); Yang et al., "MemSeg", 2022,
    2205.00908 (shuffled tiles of the image).
Differs:
    * Without a folder of textures they are procedural: two colours mixed by Perlin noise, with grain. The papers use
      the Describable Textures Dataset.
    * Three kinds of colour change: gamma and brightness, solarise, posterise. DRAEM's whole pool of augmentations is in
      :mod:`iadbe.layers.synthetic.augmentations`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from iadbe import progress, system
from iadbe.errors import BadConfig
from iadbe.files import image_io
from iadbe.layers.synthetic.perlin import perlin_noise

DRAWN = "foreign textures were drawn; the paper takes photographs of textures (textures=FOLDER)."


class TextureSource:
    """Gives a texture in [0, 1] for each image of a batch."""

    def __init__(self, folder: str = "", shuffled: float = 0.5, tiles: int = 8, recolour_foreign: bool = True) -> None:
        """Choose the source.

        Args:
            folder: of texture images, searched at any depth; "": procedural textures
            shuffled: share of the images that get their own tiles in random order instead, from 0 to 1
            tiles: number of tiles along each side
            recolour_foreign: whether foreign textures are recoloured, as shuffled tiles always are
        """
        self.shuffled, self.tiles, self.recolour_foreign = shuffled, tiles, recolour_foreign
        self.files: list[Path] = []
        if folder:
            root = system.user_path(folder)
            self.files = sorted(p for p in root.rglob("*") if p.is_file() and image_io.is_image(p))
            if not self.files:
                raise BadConfig(f"there is no image in {folder}. textures takes a folder of images, or nothing.")

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return textures (B, 3, H, W) for images (B, 3, H, W); ``generator`` is on the CPU."""
        count, _, height, width = image.shape
        if self.files:
            chosen = torch.randint(len(self.files), (count,), generator=generator)
            foreign = torch.stack([_read(self.files[i], height, width) for i in chosen.tolist()])
        else:
            progress.note(DRAWN)
            foreign = procedural_textures(count, height, width, generator)
        own = (torch.rand(count, generator=generator) < self.shuffled).view(-1, 1, 1, 1)
        texture = torch.where(own, shuffled_tiles(image.cpu(), generator, self.tiles), foreign)
        changed = recoloured(texture, generator)
        return (changed if self.recolour_foreign else torch.where(own, changed, texture)).to(image.device)


def procedural_textures(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return procedural textures (count, 3, height, width): two colours mixed by Perlin noise, with grain."""
    noise = perlin_noise(count, height, width, generator, (2, 3, 4, 5))  # (B, 1, H, W)
    colours = torch.rand(2, count, 3, 1, 1, generator=generator)
    sharp = 2 + 18 * torch.rand(count, 1, 1, 1, generator=generator)
    grain = torch.randn(count, 3, height, width, generator=generator)
    grain *= 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    return (colours[0] + (colours[1] - colours[0]) * (sharp * noise).sigmoid() + grain).clamp(0, 1)


def shuffled_tiles(image: Tensor, generator: torch.Generator, tiles: int | tuple[int, int] = 8) -> Tensor:
    """Return images (B, C, H, W) with their tiles, so many down and across, in random order.

    If a side is no multiple of the number of tiles, the remaining pixels at its end stay.
    """
    count, channels, height, width = image.shape
    down, across = (tiles, tiles) if isinstance(tiles, int) else tiles
    down, across = min(down, height), min(across, width)
    h, w = height // down, width // across
    inside = image[:, :, : h * down, : w * across].reshape(count, channels, down, h, across, w)
    parts = inside.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, down * across, C, h, w)
    order = torch.rand(count, down * across, generator=generator).argsort(1)
    mixed = torch.stack([p[o] for p, o in zip(parts, order, strict=True)])
    mixed = mixed.view(count, down, across, channels, h, w).permute(0, 3, 1, 4, 2, 5)
    result = image.clone()
    result[:, :, : h * down, : w * across] = mixed.reshape(count, channels, h * down, w * across)
    return result


def recoloured(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] with random gamma, brightness, solarise and posterise."""
    count = len(image)

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(count, channels, 1, 1, generator=generator)

    bright = image.clamp(0, 1) ** uniform(0.5, 2, 3) * uniform(0.8, 1.2) + uniform(-0.12, 0.12)
    bright = bright.clamp(0, 1)
    above = uniform(0.125, 0.5)
    solarised = torch.where((bright > above) & (uniform(0, 1) < 0.3), 1 - bright, bright)
    levels = 2 ** uniform(2, 5).round()
    return torch.where(uniform(0, 1) < 0.3, (solarised * levels).floor() / levels, solarised)


def _read(file: Path, height: int, width: int) -> Tensor:
    pixels = image_io.resized(image_io.read_rgb(file), height, width)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
