"""Alignment, whichever detector compares positions: where parts lie is recovered, and what it cost is given back."""

import csv

import numpy as np
import pytest
from PIL import Image

import iadbe
from iadbe import api
from iadbe.data import alignment
from iadbe.data.alignment import Pose, warped
from iadbe.datasets.toy import Toy
from iadbe.running import positions

pytest.importorskip("cv2", reason="alignment needs OpenCV: pip install 'iadbe[align]'")

SIDE = 256  # pixels of a washer's image
# degrees, and pixels to the right and down: up to 30 degrees and a tenth of the side
MOVES = [
    (30, 25, -25),
    (-30, -25, 10),
    (21, 8, 25),
    (-14, 25, 3),
    (27, -20, -6),
    (-23, 0, 22),
    (9, -25, 25),
    (-29, 12, 0),
]


def washers(count, seed):
    """Return one washer with the grain of different photographs, (N, SIDE, SIDE, 3) uint8."""
    toy = Toy()
    straight = toy.image(next(s for s in toy.samples() if s.category == "washer" and s.split == "train"))
    grain = np.random.default_rng(seed).normal(0, 4, (count, SIDE, SIDE, 3))
    return (straight + grain).clip(0, 255).astype(np.uint8)


def write(images, folder):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03d}.png")


def moved(image, degrees, right, down):
    """Return the image turned and shifted, and the matrix (2, 3) from pixels of the image to those of the moved one."""
    back = alignment._similarity((SIDE, SIDE), degrees=degrees, shift=(right, down))
    there = np.linalg.inv(np.vstack([back, [0, 0, 1]]))[:2]
    return warped(image, Pose(back, 1.0, True), (SIDE, SIDE)), there


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Washers that lie alike to learn from; the tested ones as they are, and moved; and where each lies then."""
    root, matrices = tmp_path_factory.mktemp("parts"), {}
    for name in ("straight", "moved"):
        write(washers(12, 0), root / name / "washer/train/good")
        for kind in ("good", "stain"):
            images = washers(len(MOVES), 1 if kind == "good" else 2)
            if kind == "stain":
                images[:, 112:140, 52:80] = (250, 40, 40)
            if name == "moved":
                images = [moved(image, *move) for image, move in zip(images, MOVES, strict=True)]
                matrices |= {f"{kind}/{i:03d}": there for i, (_, there) in enumerate(images)}
                images = [image for image, _ in images]
            write(images, root / name / f"washer/test/{kind}")
    return root, matrices


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["padim", "spade"])
def test_moved_parts_are_found_and_judged_as_if_they_lay_as_the_others(parts, detector, tmp_path):
    root, matrices = parts
    auroc = {}
    for name, protocol in (("straight", ""), ("moved", ""), ("moved", ",aligned")):
        data = str(root / name / "washer")
        (run,) = iadbe.train(detector, data, protocol=f"uniform@128{protocol}", store=tmp_path, seed=0)
        (auroc[name + protocol],) = [row.value for row in run.result.rows if row.metric == "image_auroc"]
    assert auroc["straight"] > 0.95
    assert auroc["moved"] < auroc["straight"] - 0.1
    assert auroc["moved,aligned"] > auroc["straight"] - 0.02

    with (run.folder / positions.FILE).open(newline="", encoding="utf-8") as file:
        rows = {"/".join(row["sample"].removesuffix(".png").split("/")[-2:]): row for row in csv.DictReader(file)}
    middle = np.array([(SIDE - 1) / 2, (SIDE - 1) / 2, 1])
    for name, there in matrices.items():
        row = rows[name]
        assert row["found"] == "1"
        assert float(row["rotation"]) == pytest.approx(np.degrees(np.arctan2(there[1, 0], there[0, 0])), abs=1)
        assert [float(row["x"]), float(row["y"])] == pytest.approx(list(there @ middle), abs=2)

    noise = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    write([noise, np.full_like(noise, 128), moved(washers(1, 4)[0], 75, 0, 0)[0]], tmp_path / "none")
    for one in api.predict(run.folder, tmp_path / "none", threshold=0.0):
        assert (one.position_found, one.defective) == (False, None)
        assert "position not found" in repr(one)
