"""Small folders in every layout that a reader knows, and where the real data lies, for the tests of the readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"


def real(name):
    """Return the folder of real data, or skip the test."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the real data {name} is not on this machine")
    return folder


def draw(path, *, seed=0, size=(20, 28), mode="RGB"):
    """Write a picture of noise, never twice the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.as_posix().encode()[-40:]])
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode).save(path)
    return path


def draw_mask(path, *, size=(20, 28), value=255):
    """Write a mask that marks rows 4 to 8 and columns 5 to 15."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[4:8, 5:15] = value
    Image.fromarray(mask).save(path)
    return path


def mvtec_ad(root, categories=("bolt", "nut"), train=5):
    for category in categories:
        for i in range(train):
            draw(root / category / f"train/good/{i:03d}.png")
        for kind, count in (("good", 3), ("bent", 2), ("scratch", 2)):
            for i in range(count):
                draw(root / category / f"test/{kind}/{i:03d}.png")
                if kind != "good":
                    draw_mask(root / category / f"ground_truth/{kind}/{i:03d}_mask.png")
    return {"root": str(root)}


def mtd(root, tiles=10):
    """Ten good tiles, one of which also has a hole, and five with a defect; six lights each."""
    number = 0
    for tile in range(tiles + 5):
        number += 5000
        for light in range(1, 7):
            number += 20
            bad = tile >= tiles or (tile == 0 and light == 6)
            kind = ("Blowhole", "Break", "Crack", "Fray", "Uneven")[tile % 5] if bad else "Free"
            stem = root / f"MT_{kind}/Imgs/exp{light}_num_{number}"
            draw(stem.with_suffix(".jpg"), mode="L")
            draw_mask(stem.with_suffix(".png"), value=255 if bad else 0)
    return {"root": str(root)}


def elpv(root):
    lines = []
    for i in range(40):
        path = draw(root / f"images/cell{i + 1:04d}.png", mode="L").relative_to(root).as_posix()
        lines.append(f"{path}  {(0, 0, 0, 1 / 3, 2 / 3, 0, 0, 1)[i % 8]}                 {'mono' if i % 2 else 'poly'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return {"root": str(root)}


def folder(root):
    for i in range(8):
        draw(root / f"good/{i}.png")
    for kind in ("dent", "stain"):
        for i in range(2):
            draw(root / f"bad/{kind}/{i}.png")
            draw_mask(root / f"masks/{kind}/{i}_mask.png")
    return {"root": str(root), "abnormal_dir": "bad", "mask_dir": "masks"}


def yolo(root):
    for split, count in (("train", 8), ("val", 4)):
        for i in range(count):
            draw(root / f"images/{split}/{i}.jpg")
            labels = root / f"labels/{split}/{i}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            lines = {
                0: "1 0.5 0.5 0.25 0.5\n",
                1: "",
                2: "0 0.1 0.1 0.6 0.1 0.6 0.7\n0 0.9 0.9 0.1 0.1\n1 0.5 0.5 0.1 0.1\n",
            }
            if i in lines:
                labels.write_text(lines[i])
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnc: 2\nnames: [crack, hole]\n")
    return {"root": str(root)}


TREES = {"mvtec_ad": mvtec_ad, "mtd": mtd, "elpv": elpv, "folder": folder, "yolo": yolo, "toy": lambda root: {}}
REAL = {"mvtec_ad": "mvtec_ad", "mtd": "mtd", "yolo": "kolektor_yolo/Datasets"}
