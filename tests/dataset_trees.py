"""Small folders in every layout that a reader knows, and where the real data lies, for the tests of the readers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"
ONLY_NORMAL = """
class_path: anomalib.data.Folder
init_args:
  name: "custom_dataset"
  root: "datasets/Custom_Dataset/hazelnut"
  normal_dir: "train/good"
  abnormal_dir: "test/crack"
  mask_dir: null
  normal_split_ratio: 0.2
  test_split_mode: synthetic
"""
NORMAL_AND_ABNORMAL = """
class_path: anomalib.data.Folder
init_args:
  name: "custom_dataset"
  root: "datasets/Custom_Dataset/chest_xray"
  normal_dir: "train/good"
  abnormal_dir: "test/crack"
  normal_test_dir: "test/good"
  normal_split_ratio: 0
  extensions: [".png"]
  image_size: [256, 256]
  train_batch_size: 32
  eval_batch_size: 32
  num_workers: 8
  task: classification
  train_transform: null
  eval_transform: null
  test_split_mode: synthetic
  test_split_ratio: 0.2
  val_split_mode: same_as_test
  val_split_ratio: 0.5
  seed: null
"""


def real(name):
    """Return the folder of real data, or skip the test."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the real data {name} is not on this machine")
    return folder


def draw(path, *, seed=0, size=(20, 28), mode="RGB"):
    """Write an image of noise, never twice the same one."""
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


def mvtec_like(
    root, categories, kinds=("bent", "scratch"), good="good", test="test", masks="ground_truth", ends=".png"
):
    """Draw categories that are laid out as MVTec AD, with folders of other names."""
    for category in categories:
        for i in range(5):
            draw(root / category / f"train/{good}/{i:03d}{ends}")
        for kind in (good, *kinds):
            for i in range(2):
                draw(root / category / f"{test}/{kind}/{i:03d}{ends}")
                if kind != good:
                    draw_mask(root / category / f"{masks}/{kind}/{i:03d}_mask{ends}")
    return {"root": str(root)}


def mpdd(root):
    return mvtec_like(root, ("tubes", "connector"), ("anomalous",))


def dtd_synthetic(root):
    return mvtec_like(root, ("Blotchy_099", "Woven_001"), ("bad",))


def mvtec2d_3d(root):
    return mvtec_like(root, ("bagel", "tire"), ("hole",))


def coad(root):
    return mvtec_like(root, ("A1", "D2"), ("scratch",), ends=".jpg")


def btad(root):
    given = mvtec_like(root, ("01", "03"), ("ko",), good="ok")
    for path in (root / "03").rglob("*.png"):  # that product's images are of another kind
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    return given


def mvtec_ad2(root):
    given = mvtec_like(root, ("can", "rice"), ("bad",), test="test_public", masks="test_public/ground_truth")
    for category in ("can", "rice"):
        draw(root / category / "validation/good/000_regular.png")
        draw(root / category / "test_private/000_regular.png")
        draw(root / category / "test_private_mixed/000_mixed.png")
    return given


DEFECTS = """[
  {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 15, "relative_saturation": false},
  {"defect_name": "b", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": true},
  {"defect_name": "c", "pixel_value": 253, "saturation_threshold": 9999, "relative_saturation": false}
]"""


def mvtec_loco(root):
    """Every logical defect has two regions, that overlap: rows 4 to 8, columns 5 to 15, and the columns 0 to 10."""
    for category in ("pens", "pins"):
        for i in range(4):
            draw(root / category / f"train/good/{i:03d}.png")
        draw(root / category / "validation/good/000.png")
        for kind in ("good", "logical_anomalies", "structural_anomalies"):
            for i in range(2):
                draw(root / category / f"test/{kind}/{i:03d}.png")
                if kind != "good":
                    masks = root / category / f"ground_truth/{kind}/{i:03d}"
                    draw_mask(masks / "000.png", value=255)
                if kind == "logical_anomalies":
                    other = np.zeros((20, 28), np.uint8)
                    other[6:9, 0:10] = 254
                    Image.fromarray(other).save(masks / "001.png")
        (root / category / "defects_config.json").write_text(DEFECTS)
    return {"root": str(root)}


def draw_points(path, size=(20, 28), bump=0.0):
    """Write a point cloud: z is row plus a tenth of the column, and a bump in it; nothing was measured in row 0."""
    tifffile = pytest.importorskip("tifffile")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    points = np.stack([columns, rows, rows + columns / 10], axis=2)
    points[0] = 0
    points[8:14, 8:14, 2] += bump
    tifffile.imwrite(path, points, photometric="rgb")


def mvtec_3d(root):
    for category in ("bagel", "rope"):
        for place in ("train/good", "validation/good", "test/good", "test/hole"):
            for i in range(3):
                draw(root / category / place / f"rgb/{i:03d}.png")
                draw_points(root / category / place / f"xyz/{i:03d}.tiff")
                draw_mask(root / category / place / f"gt/{i:03d}.png", value=255 if "hole" in place else 0)
        (root / category / "calibration").mkdir()
        (root / category / "calibration/camera_parameters.json").write_text("{}")
    return {"root": str(root)}


def visa(root):
    rows = ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        for i in range(5):
            path = draw(root / category / f"Data/Images/Normal/{i:04d}.JPG").relative_to(root).as_posix()
            rows.append(f"{category},{'train' if i < 3 else 'test'},normal,{path},")
        for i in range(2):
            path = draw(root / category / f"Data/Images/Anomaly/{i:03d}.JPG").relative_to(root).as_posix()
            mask = draw_mask(root / category / f"Data/Masks/Anomaly/{i:03d}.png", value=i + 1)
            rows.append(f"{category},test,anomaly,{path},{mask.relative_to(root).as_posix()}")
        (root / category / "image_anno.csv").write_text("image,label,mask\n")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return {"root": str(root)}


def kolektor_sdd(root):
    """Six commutators with four parts; the last part of every second one is defective."""
    for item in range(1, 7):
        for part in range(4):
            draw(root / f"kos{item:02d}/Part{part}.jpg", mode="L")
            draw_mask(root / f"kos{item:02d}/Part{part}_label.bmp", value=255 if part == 3 and item % 2 else 0)
    return {"root": str(root)}


def kolektor_sdd2(root):
    """Of each four images one is defective, in train too."""
    for split, first in (("train", 10000), ("test", 20000)):
        for number in range(first, first + 8):
            draw(root / f"{split}/{number}.png")
            draw_mask(root / f"{split}/{number}_GT.png", value=255 if number % 4 == 0 else 0)
    return {"root": str(root)}


def dagm(root):
    """Of each four images one is defective, in Train too."""
    for category in ("Class1", "Class10"):
        for split in ("Train", "Test"):
            for number in range(1, 9):
                draw(root / f"{category}/{split}/{number:04d}.PNG", mode="L")
                if number % 4 == 0:
                    draw_mask(root / f"{category}/{split}/Label/{number:04d}_label.PNG")
            (root / f"{category}/{split}/Label/Labels.txt").write_text("1\n")
    return {"root": str(root)}


def real_iad(root):
    for lists, views in (("realiad_jsons", "12"), ("realiad_jsons_sv", "1")):
        for category in ("audiojack", "zipper"):
            found = {"meta": {"normal_class": "OK", "prefix": category}, "train": [], "test": []}
            for split, kind, samples in (("train", "OK", "1234"), ("test", "OK", "56"), ("test", "QS", "78")):
                for sample in samples:
                    for view in views:
                        folder = f"{'OK' if kind == 'OK' else f'NG/{kind}'}/S000{sample}"
                        path = f"{folder}/{category}_{sample}_{kind}_C{view}.jpg"
                        draw(root / "realiad_256" / category / path)
                        mask = None
                        if kind != "OK":
                            mask = path.replace(".jpg", "_mask.png")
                            draw_mask(root / "realiad_256" / category / mask)
                        found[split].append({"image_path": path, "mask_path": mask, "anomaly_class": kind})
            file = root / "realiad_jsons" / lists / f"{category}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found))
    return {"root": str(root)}


def eyecandies(root):
    """Depth goes from 2 to 3 metres, from left to right."""
    levels = np.tile(np.linspace(0, 65535, 28).astype(np.uint16), (20, 1))
    for category in ("CandyCane", "Lollipop"):
        for part, digits in (("train", 3), ("val", 3), ("test_public", 2), ("test_private", 3)):
            for i in range(4):
                start = root / category / part / f"data/{i:0{digits}d}"
                for light in range(6):
                    draw(start.with_name(f"{start.name}_image_{light}.png"))
                draw(start.with_name(f"{start.name}_normals.png"))
                Image.fromarray(levels).save(start.with_name(f"{start.name}_depth.png"))
                bounds = "normalization:\n  min: 2.0\n  max: 3.0\n"
                start.with_name(f"{start.name}_info_depth.yaml").write_text(bounds)
                if part != "test_private":
                    bad = part == "test_public" and i % 2
                    draw_mask(start.with_name(f"{start.name}_mask.png"), value=255 if bad else 0)
    return {"root": str(root)}


def frames(root):
    """Clips of twelve frames, whose numbers are not filled up with zeros; in one, only some frames are marked."""
    for clip in ("train/good/a", "train/good/b", "test/good/c", "test/jam/d", "test/jam/e", "test/jam/f"):
        for i in range(1, 13):
            draw(root / clip / f"frame{i}.png")
    for i in (9, 10, 11):
        draw_mask(root / f"ground_truth/jam/d/frame{i}.png")
    (root / "labels.csv").write_text("clip,first,last\njam/e,0,1\njam/e,11,11\n")
    return {"root": str(root)}


def draw_video(path, codec, looks, *, b_frames=0):
    """Write a video of 32x48 pixels; a frame is given by its pixels or its grey level."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.gop_size, stream.max_b_frames, stream.bit_rate = 20, b_frames, 4_000_000
        for look in looks:
            pixels = np.full((32, 48, 3), look, np.uint8) if np.isscalar(look) else look
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


TREES = {
    "btad": btad,
    "coad": coad,
    "dagm": dagm,
    "dtd_synthetic": dtd_synthetic,
    "elpv": elpv,
    "eyecandies": eyecandies,
    "folder": folder,
    "frames": frames,
    "kolektor_sdd": kolektor_sdd,
    "kolektor_sdd2": kolektor_sdd2,
    "mpdd": mpdd,
    "mtd": mtd,
    "mvtec2d_3d": mvtec2d_3d,
    "mvtec_3d": mvtec_3d,
    "mvtec_ad": mvtec_ad,
    "mvtec_ad2": mvtec_ad2,
    "mvtec_loco": mvtec_loco,
    "real_iad": real_iad,
    "toy": lambda root: {},
    "visa": visa,
    "yolo": yolo,
}
REAL = {"mvtec_ad": "mvtec_ad", "mtd": "mtd", "yolo": "kolektor_yolo/Datasets"}  # whole categories, in SHARED


def whole(name):
    """Return the folder of a dataset as it was published: in SHARED, or named so in $IADBE_DATA, or skip the test."""
    if name in REAL:
        return real(REAL[name])
    place = Path(os.environ.get("IADBE_DATA", "/nowhere"), name)
    if not place.is_dir():
        pytest.skip(f"the published {name} is not on this machine: $IADBE_DATA/{name}")
    return place
