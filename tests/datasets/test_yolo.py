from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw, real, yolo
from iadbe.datasets.yolo import YOLO, rasterise, read_labels
from iadbe.errors import BadConfig, BadData


def sides(dataset):
    return Counter((s.split, s.defect) for s in dataset.samples())


def test_labels_make_defects_and_their_absence_good_parts(tmp_path):
    dataset = YOLO(**yolo(tmp_path), name="tile")
    assert sides(dataset) == {
        ("train", "good"): 6, ("test", "good"): 2, ("test", "hole"): 2, ("test", "crack"): 2,
    }  # fmt: skip
    assert dataset.categories == ("tile",)
    dropped = YOLO(str(tmp_path), defects_in_train="drop")
    assert sum(n for (split, kind), n in sides(dropped).items() if kind != "good") == 2


def test_a_box_and_a_polygon_become_masks(tmp_path):
    dataset = YOLO(**yolo(tmp_path))
    box = next(s for s in dataset.samples() if s.image == "images/val/0.jpg")
    mask = dataset.mask(box)
    assert mask.shape == (20, 28)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 15, 10, 17)  # 0.25 to 0.75, 0.375 to 0.625
    polygon = next(s for s in dataset.samples() if s.image == "images/val/2.jpg")
    assert polygon.defect == "crack"
    mask = dataset.mask(polygon)
    assert mask[3, 14]  # inside of the triangle
    assert not mask[12, 5]  # below its long side


def test_classes_that_are_good_are_no_defects(tmp_path):
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: crack, 1: OK}\n")
    found = sides(YOLO(str(tmp_path)))
    assert {kind for _, kind in found} == {"good", "crack"}
    assert sum(n for (_, kind), n in found.items() if kind == "crack") == 2


@pytest.mark.parametrize(
    "written",
    [
        "path: NAME\ntrain: images/train\nval: images/val",  # seen from the folder above
        "path: .\ntrain: images/train\nvalid: [images/val]",
        "train: ../images/train\nval: ../images/val",  # one level too high, as exporters write it
        "train: train.txt\nval: images/val",
    ],
)
def test_paths_are_understood_as_tools_write_them(tmp_path, written):
    yolo(tmp_path)
    expected = sides(YOLO(str(tmp_path)))
    (tmp_path / "train.txt").write_text("\n".join(f"./images/train/{i}.jpg" for i in range(8)))
    (tmp_path / "data.yaml").write_text(written.replace("NAME", tmp_path.name) + "\nnames: [crack, hole]\n")
    assert sides(YOLO(str(tmp_path))) == expected


def test_data_beside_the_file_s_folder_is_found_again_from_the_same_root(tmp_path):
    yolo(tmp_path / "data")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/set.yaml").write_text(
        "path: ../data\ntrain: images/train\nval: images/val\nnames: [crack, hole]\n"
    )
    dataset = YOLO(str(tmp_path / "config"), name="x")
    assert sides(dataset) == sides(YOLO(str(tmp_path / "data")))
    assert YOLO(str(dataset.root), name="x").samples() == dataset.samples()
    assert dataset.image(dataset.samples()[0]).shape == (20, 28, 3)


def test_without_other_good_images_some_are_held_out_and_none_is_on_both_sides(tmp_path):
    yolo(tmp_path)
    for written in ("train: images/train\nval: images/train", "train: images/train"):
        (tmp_path / "data.yaml").write_text(written + "\nnames: [crack, hole]\n")
        dataset = YOLO(str(tmp_path), normal_split_ratio=0.5)
        assert sides(dataset)["train", "good"] == sides(dataset)["test", "good"] == 3
        assert len({s.image for s in dataset.samples()}) == 8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.1", r"0\.txt, line 2 has 3 numbers"),
        ("2 0.5 0.5 0.1 0.1", "names class 2, but the YAML file has 2 names"),
        ("0 320 240 10 10", "coordinates outside of 0 to 1"),
        ("crack 0.5 0.5 0.1 0.1", "not a number"),
    ],
)
def test_labels_that_cannot_be_read_name_file_and_line(tmp_path, line, said):
    file = tmp_path / "0.txt"
    file.write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(BadData, match=said):
        read_labels(file, 2)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("train: images/train\nnc: 3\nnames: [a, b]", "nc is 3, but there are 2 names"),
        ("train: images/nowhere\nnames: [a, b]", "found no images for train: 'images/nowhere' in"),
        ("train: images/train\nval: images/no\nnames: [a, b]", "found no images for val: 'images/no'"),
        ("train: images/train\nnames: {1: a}", "numbered 0, 1, 2"),
        ("path: .", "there is no data.yaml with train and names"),
    ],
)
def test_a_file_that_cannot_be_used_is_reported(tmp_path, written, said):
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(written)
    with pytest.raises(BadData, match=said):
        YOLO(str(tmp_path)).samples()


def test_a_polygon_touching_the_border_stays_inside():
    mask = rasterise([(0, 0, 1, 0, 1, 1, 0, 1)], 5, 4)
    assert mask.all()
    assert mask.shape == (5, 4)


def test_real_polygons_become_the_masks_that_came_with_them():
    """The masks were drawn at 500 pixels of width and then made smaller; drawn likewise, ours are the same."""
    dataset = YOLO(str(real("kolektor_yolo/Datasets")))
    assert sides(dataset) == {("train", "good"): 278, ("test", "good"): 69, ("test", "defect"): 52}
    overlaps, native = [], []
    for s in (s for s in dataset.samples() if s.is_anomaly):
        stem = s.image.rpartition("/")[2].removesuffix(".jpg")
        truth = np.asarray(Image.open(real("kolektor_yolo/masks_from_polygons") / f"{stem}_mask.png")) > 0
        polygons = [points for _, points in read_labels(dataset.root / s.mask, 1)]
        y = np.concatenate([p[1::2] for p in polygons])
        height = min(range(1200, 1300), key=lambda h: np.abs(y * h - np.round(y * h)).max())  # where corners are whole
        large = Image.fromarray(rasterise(polygons, height, 500))
        drawn = np.asarray(large.resize(truth.shape[::-1], Image.Resampling.NEAREST))
        overlaps.append((drawn & truth).sum() / (drawn | truth).sum())
        ours = dataset.mask(s)
        native.append((ours & truth).sum() / (ours | truth).sum())
    assert min(overlaps) == 1
    assert np.mean(native) > 0.85  # cracks of a few pixels: their border is a good part of them


def test_images_without_a_folder_of_images_have_labels_beside_them(tmp_path):
    for i in range(4):
        draw(tmp_path / f"set/{i}.png")
    (tmp_path / "set/0.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: set\nnames: [dent]\n")
    found = {s.image: s.mask for s in YOLO(str(tmp_path)).samples() if s.is_anomaly}
    assert found == {"set/0.png": "set/0.txt"}


def test_augmented_copies_of_one_image_are_one_group_and_in_one_split(tmp_path):
    for i in range(10):
        for copy in range(3):
            draw(tmp_path / f"images/train/part{i}_jpg.rf.{copy:032x}.jpg")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [crack]\n")
    samples = YOLO(str(tmp_path)).samples()
    split = {}
    for s in samples:
        split.setdefault(s.group, set()).add(s.split)
    assert len(split) == 10
    assert all(len(found) == 1 for found in split.values())
    assert sum(s.split == "test" for s in samples) == 6
    own = YOLO(str(tmp_path), group=r"part(\d)").samples()
    assert {s.group for s in own} == set("0123456789")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_and_lists_may_have_a_byte_order_mark(tmp_path, encoding):
    yolo(tmp_path)
    (tmp_path / "labels/train/0.txt").write_text("1 0.5 0.5 0.25 0.5\n", encoding=encoding)
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [crack, hole]\n", encoding=encoding)
    (tmp_path / "train.txt").write_text("\n".join(f"images/train/{i}.jpg" for i in range(8)), encoding=encoding)
    kinds = {s.image: s.defect for s in YOLO(str(tmp_path)).samples()}
    assert len(kinds) == 12
    assert kinds["images/train/0.jpg"] == "hole"


def test_all_label_files_that_cannot_be_read_are_named_and_may_be_left_out(tmp_path):
    yolo(tmp_path)
    for number in (3, 4, 5):
        (tmp_path / f"labels/train/{number}.txt").write_text("0 1.2 1.2 0.1 0.1\n" if number < 5 else "0 x\n")
    with pytest.raises(BadData) as error:
        YOLO(str(tmp_path)).samples()
    text = str(error.value)
    assert text.startswith("3 label files cannot be read: ")
    assert all(f"train/{number}.txt, line 1" in text for number in (3, 4, 5))
    assert text.endswith("Leave their images out with --data.bad_labels drop.")
    kept = {s.image for s in YOLO(str(tmp_path), bad_labels="drop").samples()}
    assert len(kept) == 9
    assert not kept & {f"images/train/{number}.jpg" for number in (3, 4, 5)}
    with pytest.raises(BadConfig, match=r"yolo\.bad_labels is 'ignore'"):
        YOLO(str(tmp_path), bad_labels="ignore")
