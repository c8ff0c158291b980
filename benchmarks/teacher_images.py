"""Collect the images from which EfficientAD's teacher in the package was distilled, in a folder.

    python benchmarks/teacher_images.py FOLDER
    iadbe distil --images FOLDER …  (the card beside src/iadbe/networks/pdn_s.safetensors has the options)

It needs scikit-image 0.26, scikit-learn, SciPy and pooch (SciPy loads its image face once from the network).

All may be redistributed and changed. scikit-image's (in its wheel; licences as its docstrings state them): astronaut,
clock_motion, hubble_deep_field and rocket are in the public domain; brick, camera, cell, chelsea, coffee, grass,
gravel, microaneurysms and retina are CC0; coins, ihc and text have no known copyright restrictions. Its images without
a stated licence (moon, page, motorcycle, lfw_subset) are left out. scikit-learn's china.jpg and flower.jpg are CC BY
2.0, by danielbuechele and vultilion. SciPy's face is in the public domain. The rest is drawn: 12 good parts of the toy
data set and 8 textures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iadbe.datasets.toy import Toy
from iadbe.layers.synthetic.textures import procedural_textures, recoloured

SKIMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "retina.jpg"),
    *("rocket.jpg", "text.png"),
)
SIDE, PARTS, TEXTURES = 512, 3, 8  # pixels; drawn parts of each category; drawn textures


def main(folder: Path) -> None:
    import scipy.datasets
    import skimage
    import sklearn.datasets

    folder.mkdir(parents=True, exist_ok=True)
    own = Path(skimage.__file__).parent / "data"
    photographs = [own / name for name in SKIMAGE]
    photographs += [Path(sklearn.datasets.__file__).parent / "images" / name for name in ("china.jpg", "flower.jpg")]
    for file in photographs:
        (folder / file.name).write_bytes(file.read_bytes())
    Image.fromarray(scipy.datasets.face()).save(folder / "face.png")
    toy = Toy(size=SIDE, count=8)
    for sample in (s for s in toy.samples() if s.split == "train" and int(s.id[-3:]) < PARTS):
        Image.fromarray(toy.image(sample)).save(folder / f"drawn_{sample.id.replace('/', '_')}.png")
    source = torch.Generator().manual_seed(0)
    for number in range(TEXTURES):
        texture = recoloured(procedural_textures(1, SIDE, SIDE, source), source)[0]
        pixels = (texture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"texture_{number:02}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
