"""Little images of parts, good ones and with a red spot, that a real detector tells apart in a second."""

import numpy as np
from PIL import Image


def draw(path, seed, spot=False):
    """Write a striped 64x64 image, with a red spot where it is asked for; return its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    grey = 120 + 40 * np.sin(x / 4 + rng.normal() * 0.3) + 20 * np.sin(y / 7) + rng.normal(0, 6, (64, 64))
    pixels = np.stack([grey, 0.8 * grey, 0.6 * grey], 2)
    row, column = rng.integers(15, 49, 2)
    mask = ((y - row) ** 2 + (x - column) ** 2 < 40) & spot
    pixels[mask] = (230, 30, 30)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return mask


def draw_parts(root, good=12, bad=4):
    """Draw folders ``good`` and ``scratch``."""
    for i in range(good):
        draw(root / f"good/{i}.png", i)
    for i in range(bad):
        draw(root / f"scratch/{i}.png", 100 + i, spot=True)
    return root


def draw_mvtec(root, category="nut"):
    """Draw a category in the layout of MVTec AD, with masks."""
    for i in range(8):
        draw(root / category / f"train/good/{i}.png", i)
    for i in range(3):
        draw(root / category / f"test/good/{i}.png", 50 + i)
        mask = draw(root / category / f"test/spot/{i}.png", 70 + i, spot=True)
        (root / category / "ground_truth/spot").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / category / f"ground_truth/spot/{i}_mask.png")
    return root
