"""Draws the images of synthetic_defects.md: every kind of synthetic defect on the parts of the toy data set, seeded.

Usage: python docs/synthetic_defects.py [NAME ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from iadbe.data.images import View
from iadbe.datasets.toy import Toy
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.statistics.pca import pca
from iadbe.layers.synthetic.augmentations import augmented
from iadbe.layers.synthetic.blending import blended
from iadbe.layers.synthetic.cutpaste import cut_paste, cut_paste_scar
from iadbe.layers.synthetic.foreground import object_mask
from iadbe.layers.synthetic.natural_anomalies import PatchRules, anomaly_label, natural_anomaly
from iadbe.layers.synthetic.perlin import combined_perlin_masks, nonempty_perlin_masks, perlin_noise
from iadbe.layers.synthetic.photometric import brightness_and_dots, colour_jitter
from iadbe.layers.synthetic.poisson import poisson_blended
from iadbe.layers.synthetic.textures import procedural_textures, recoloured, shuffled_tiles
from iadbe.networks.backbone import Backbone

FOLDER = Path(__file__).parent / "synthetic"
SIDE = 112  # pixels of each part
GAP = 4  # white pixels between parts
COLOURS = 216
SEED = 5


def parts(number: int = 0, side: int = SIDE) -> Tensor:
    """Return one good image of each toy category, (4, 3, side, side) in [0, 1]."""
    samples = [[s for s in TOY.samples() if s.category == c and not s.is_anomaly] for c in TOY.categories]
    pixels = [View(side)(TOY.image(of_category[number])) for of_category in samples]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


TOY = Toy()
Rows = list[Tensor]  # each (4, 1 or 3, SIDE, SIDE)


def textures(source: torch.Generator) -> Rows:
    """Perlin masks filled with drawn textures (DRAEM)."""
    image = parts()
    mask = nonempty_perlin_masks(len(image), SIDE, SIDE, source)
    texture = recoloured(procedural_textures(len(image), SIDE, SIDE, source), source)
    return [image, texture, blended(image, mask, texture, source), mask]


def tiles(source: torch.Generator) -> Rows:
    """Perlin masks filled with the image's own tiles in random order (MemSeg)."""
    image = parts()
    mask = nonempty_perlin_masks(len(image), SIDE, SIDE, source)
    texture = recoloured(shuffled_tiles(image, source), source)
    return [image, texture, blended(image, mask, texture, source), mask]


def on_object(source: torch.Generator) -> Rows:
    """Unions and intersections of Perlin masks, on the object only (GLASS)."""
    image = parts()
    region = object_mask(image)
    mask = combined_perlin_masks(len(image), SIDE, SIDE, source, region)
    texture = procedural_textures(len(image), SIDE, SIDE, source)
    return [image, region, blended(image, mask, texture, source, (0.5, 0.5)), mask]


def cutpaste(source: torch.Generator) -> Rows:
    """Pasted patches (CutPaste)."""
    return [parts(), *cut_paste(parts(), source)]


def scar(source: torch.Generator) -> Rows:
    """Pasted scars (CutPaste-Scar)."""
    return [parts(), *cut_paste_scar(parts(), source)]


def poisson(source: torch.Generator) -> Rows:
    """A rectangle of another part: pasted, blended by Poisson's equation, blended with mixed gradients."""
    image, other = parts(), parts(1).roll(1, 0)
    side = SIDE // 3
    mask = torch.ones(side, side, dtype=torch.bool)
    drawn = torch.randint(SIDE - side, (2, 2, len(image)), generator=source).tolist()
    pasted, plain, mixed = (image.clone() for _ in range(3))
    for number, (y, x, top, left) in enumerate(zip(*drawn[0], *drawn[1], strict=True)):
        patch = other[number, :, y : y + side, x : x + side]
        pasted[number, :, top : top + side, left : left + side] = patch
        plain[number] = poisson_blended(image[number], patch, mask, top, left)
        mixed[number] = poisson_blended(image[number], patch, mask, top, left, mixed=True)
    return [image, pasted, plain, mixed]


def nsa(source: torch.Generator) -> Rows:
    """Resized patches of another image of the category, blended in, with logistic labels (NSA)."""
    image, other, objects = parts(), parts(1), [object_mask(parts(number))[:, 0] for number in (0, 1)]
    rules = PatchRules(half_height=(0.08, 0.3), half_width=(0.08, 0.3), min_object=0.5)
    changed, labels = [], []
    for one, two, *masks in zip(image, other, *objects, strict=True):
        made, mask = natural_anomaly(one, two, source, rules, tuple(masks))
        label, levels = anomaly_label(one, made, mask)
        changed.append(made)
        labels.append((label * (levels / 2 - 4 / 2).sigmoid())[None])
    return [image, torch.stack(changed), torch.stack(labels)]


def augmentations(source: torch.Generator) -> Rows:
    """The same textures, each changed by three of ten augmentations (DRAEM)."""
    texture = procedural_textures(4, SIDE, SIDE, source)
    return [texture, augmented(texture, source), augmented(texture, source)]


def photometric(source: torch.Generator) -> Rows:
    """Brightness and dots (CPR), and colour jitter, which is not a defect but hides small differences (CutPaste)."""
    image = parts()
    dotted = image
    while torch.equal(dotted, image) or float((dotted == 1).float().mean()) < 0.001:
        dotted = brightness_and_dots(image, source)
    return [image, dotted, colour_jitter(image, source, 0.3)]


def feature_noise(source: torch.Generator) -> Rows:
    """Gaussian noise on features where Perlin noise is high (SuperSimpleNet); colours: three principal components."""
    image = parts()
    features = patch_embedding(Backbone()(parts(side=256)))  # (4, C, 32, 32)
    features = features / features.square().mean().sqrt() * 0.1
    mask = perlin_noise(len(image), *features.shape[-2:], source, rotated=False) > 0.2
    noisy = features + mask * torch.randn(features.shape, generator=source) * 0.1
    coloured: tuple[Rows, Rows] = ([], [])
    for one, two in zip(features.flatten(2).mT, noisy.flatten(2).mT, strict=True):
        axes = pca(one, most=3)
        shown = [axes.project(rows) for rows in (one, two)]
        low, high = (shown[0].quantile(share, 0) for share in (0.02, 0.98))
        for into, projection in zip(coloured, shown, strict=True):
            into.append(((projection - low) / (high - low)).clamp(0, 1).T.view(3, *mask.shape[-2:]))
    return [image, *map(torch.stack, coloured), mask]


GALLERY: tuple[Callable[[torch.Generator], Rows], ...] = (
    *(textures, tiles, on_object, cutpaste, scar, poisson, nsa, augmentations, photometric, feature_noise),
)


def drawn(make: Callable[[torch.Generator], Rows], seed: int = SEED) -> Image.Image:
    """Return the image of one kind of defect: a column per part, a row per stage."""
    rows = [_enlarged(row.float()) for row in make(torch.Generator().manual_seed(seed))]
    lines = [torch.cat([F.pad(one, (0, GAP, 0, GAP), value=1.0) for one in row], 2) for row in rows]
    pixels = (torch.cat(lines, 1)[:, :-GAP, :-GAP] * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels)


def _enlarged(row: Tensor) -> Tensor:
    """Return (4, 3, SIDE, SIDE)."""
    row = row if row.shape[-1] == SIDE else F.interpolate(row, (SIDE, SIDE), mode="nearest")
    return row.expand(-1, 3, -1, -1)


def main() -> None:
    """Write the images that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *(make.__name__ for make in GALLERY)])
    asked = parser.parse_args().names
    FOLDER.mkdir(exist_ok=True)
    for make in GALLERY:
        if not asked or make.__name__ in asked:
            file = FOLDER / f"{make.__name__}.png"
            drawn(make).quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
            print(f"{file.name}: {file.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
