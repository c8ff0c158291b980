"""What synthetic defects are filled with: a foreign texture, or the image's own parts in disorder.

Paper: Zavrtanik et al., "DRAEM", ICCV 2021 (foreign textures); Yang et al., "MemSeg", 2022, 2205.00908 (disorder).
Differs: without a folder of textures (the papers take the Describable Textures Dataset) they are drawn: two colours
    mixed by Perlin's noise, with some grain. Of the nine ways to recolour a texture three kinds are taken: another
    gamma and brightness, colours inverted above a threshold, few levels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from iadbe.errors import BadConfig
from iadbe.files import image_io
from iadbe.layers.synthetic.perlin import perlin_noise


class TextureSource:
    """Makes a filling (B, 3, H, W) in [0, 1] for each of a batch of images."""

    def __init__(self, folder: str = "", shuffled: float = 0.5, tiles: int = 8) -> None:
        """Choose where foreign textures come from.

        Args:
            folder: of images, searched at any depth; "": textures are drawn
            shuffled: share of the images that are filled with their own parts in disorder
            tiles: how many of those parts there are along each side
        """
        self.shuffled, self.tiles = shuffled, tiles
        self.files: list[Path] = []
        if folder:
            root = Path(folder).expanduser()
            self.files = sorted(p for p in root.rglob("*") if p.is_file() and image_io.is_image(p))
            if not self.files:
                raise BadConfig(f"there is no image in {folder}. textures takes a folder of images, or nothing.")

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Return fillings for images (B, 3, H, W); everything random follows from ``generator``, one of the CPU."""
        count, _, height, width = image.shape
        if self.files:
            chosen = torch.randint(len(self.files), (count,), generator=generator)
            foreign = torch.stack([_read(self.files[i], height, width) for i in chosen.tolist()])
        else:
            foreign = procedural_textures(count, height, width, generator)
        own = torch.rand(count, generator=generator) < self.shuffled
        filling = torch.where(own.view(-1, 1, 1, 1), shuffled_tiles(image.cpu(), generator, self.tiles), foreign)
        return recoloured(filling, generator).to(image.device)


def procedural_textures(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw textures (B, 3, H, W): two colours, mixed by noise from soft to sharp, and grain."""
    noise = perlin_noise(count, height, width, generator, (2, 3, 4, 5))  # (B, 1, H, W)
    colours = torch.rand(2, count, 3, 1, 1, generator=generator)
    sharp = 2 + 18 * torch.rand(count, 1, 1, 1, generator=generator)
    grain = torch.randn(count, 3, height, width, generator=generator)
    grain *= 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    return (colours[0] + (colours[1] - colours[0]) * (sharp * noise).sigmoid() + grain).clamp(0, 1)


def shuffled_tiles(image: Tensor, generator: torch.Generator, tiles: int = 8) -> Tensor:
    """Cut each image (B, C, H, W) into ``tiles`` x ``tiles`` parts, and lay them in random order.

    Where a side is no multiple of ``tiles``, what is left over at its end stays.
    """
    count, channels, height, width = image.shape
    tiles = min(tiles, height, width)
    h, w = height // tiles, width // tiles
    inside = image[:, :, : h * tiles, : w * tiles].reshape(count, channels, tiles, h, tiles, w)
    parts = inside.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, tiles * tiles, C, h, w)
    order = torch.rand(count, tiles * tiles, generator=generator).argsort(1)
    mixed = torch.stack([p[o] for p, o in zip(parts, order, strict=True)])
    mixed = mixed.view(count, tiles, tiles, channels, h, w).permute(0, 3, 1, 4, 2, 5)
    result = image.clone()
    result[:, :, : h * tiles, : w * tiles] = mixed.reshape(count, channels, h * tiles, w * tiles)
    return result


def recoloured(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change the colours of each image (B, 3, H, W), all in [0, 1], in its own way."""
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
