import json

import numpy as np
import pytest

from dataset_trees import draw
from iadbe.errors import BadData
from iadbe.files import annotation_index

SQUARE = [[2, 3], [10, 3], [10, 7], [2, 7]]
LABELS = {"good": ("ok",), "roi": ("roi",), "ignore": ("Ignore",)}


def labelme(*labels, image="0.png", points=SQUARE):
    shapes = [{"label": label, "points": points, "shape_type": "polygon"} for label in labels]
    return {"version": "5.4.1", "shapes": shapes, "imagePath": image, "imageHeight": 20, "imageWidth": 28}


def coco(**images):
    """Return a COCO file of images, each with one box: its name and label."""
    return {
        "images": [{"id": n, "file_name": name, "height": 20, "width": 28} for n, name in enumerate(images.values())],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 3, 8, 4]} for n in range(len(images))],
        "categories": [{"id": 1, "name": "dent"}],
    }


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.fixture
def images(tmp_path):
    names = ["bad/0.png", "bad/1.png", "good/0.png"]
    for name in names:
        draw(tmp_path / name)
    return names


def test_files_beside_the_images_are_read_in_every_format(tmp_path, images):
    write(tmp_path / "bad/0.json", labelme("dent"))
    write(tmp_path / "annotations/all.json", coco(a="bad/1.png"))
    write(
        tmp_path / "cvat.xml",
        '<annotations><image name="good/0.png"><box label="x" xtl="1" ytl="1" xbr="2" ybr="2"/></image></annotations>',
    )
    write(tmp_path / "bad/other.json", "[1]")
    write(tmp_path / "bad/voc.xml", "<annotation><object/></annotation>")
    found = annotation_index.read(tmp_path, images)
    assert {image: found.kind(image) for image in images} == dict(zip(images, ("dent", "dent", "x"), strict=True))
    assert found.files == {"bad/0.json": "LabelMe", "annotations/all.json": "COCO", "cvat.xml": "CVAT"}
    expected = np.zeros((20, 28), bool)
    expected[3:8, 2:11] = True
    assert np.array_equal(found.defects("bad/0.png", (20, 28)), expected)
    assert annotation_index.read(tmp_path, images, "none").of == {}


def test_the_most_frequent_label_is_the_kind_and_some_labels_mean_no_defect(tmp_path, images):
    write(tmp_path / "bad/0.json", labelme("scratch", "OK", "OK", "roi", "dent", "dent", "ok"))
    write(tmp_path / "bad/1.json", labelme("ok", "ROI", image="1.png"))
    found = annotation_index.read(tmp_path, images, **LABELS)
    assert (found.kind("bad/0.png"), found.kind("bad/1.png")) == ("dent", "")


def test_the_region_is_inside_of_roi_and_outside_of_ignore(tmp_path, images):
    write(tmp_path / "bad/0.json", labelme("roi"))
    content = labelme("ignore", image="1.png")
    content["shapes"].append({"label": "roi", "points": [[0, 0], [10, 0], [10, 19], [0, 19]]})
    write(tmp_path / "bad/1.json", content)
    found = annotation_index.read(tmp_path, images, **LABELS)
    inner = np.zeros((20, 28), bool)
    inner[3:8, 2:11] = True
    assert np.array_equal(found.region("bad/0.png", (20, 28)), inner)
    left = np.zeros((20, 28), bool)
    left[:, :11] = True
    assert np.array_equal(found.region("bad/1.png", (20, 28)), left & ~inner)
    assert found.region("good/0.png", (20, 28)) is None


class TestNames:
    @pytest.mark.parametrize(
        ("file", "name", "image"),
        [
            ("bad/0.json", "renamed.png", "bad/0.png"),  # beside the image of its own stem, as LabelMe looks for it
            ("bad/0.json", "..\\elsewhere\\0.png", "bad/0.png"),  # the image lay elsewhere when it was annotated
            ("good/0.json", "../bad/0.png", "bad/0.png"),
            ("bad/x.json", "1.png", "bad/1.png"),
            ("x.json", "bad\\1.png", "bad/1.png"),
            ("x.json", "/home/me/project/bad/1.png", "bad/1.png"),
            ("labels/x.json", "../good/0.png", "good/0.png"),
            ("labels/x.json", "1.png", "bad/1.png"),
            ("x.json", "../../../../etc/passwd", None),
            ("x.json", "nowhere.png", None),
        ],
    )
    def test_they_mean_one_of_the_images_or_none(self, tmp_path, images, file, name, image):
        write(tmp_path / file, labelme("dent", image=name))
        found = annotation_index.read(tmp_path, images)
        assert list(found.of) == ([image] if image else [])

    @pytest.mark.parametrize(("file", "name"), [("x.json", "odd/1.png"), ("labels/x.json", "../odd/1.png")])
    def test_another_file_of_the_data_is_none_of_the_images(self, tmp_path, images, file, name):
        """A dataset may read some of the annotated folders: the others' shapes must not fall upon its images."""
        draw(tmp_path / "odd/1.png")
        write(tmp_path / file, coco(a=name))
        assert annotation_index.read(tmp_path, images).of == {}

    def test_a_name_of_several_images_is_an_error(self, tmp_path, images):
        write(tmp_path / "x.json", coco(a="0.png"))
        with pytest.raises(BadData, match=r"is the name of 2 images \(for example bad/0.png and good/0.png\)"):
            annotation_index.read(tmp_path, images)

    def test_nothing_outside_of_the_folder_is_opened(self, tmp_path, images, monkeypatch):
        secret = tmp_path.parent / "secret.png"
        draw(secret)
        write(tmp_path / "x.json", coco(a=str(secret), b="../secret.png"))
        assert annotation_index.read(tmp_path, images).of == {}


def test_damaged_files_named_like_images_are_named(tmp_path, images):
    write(tmp_path / "bad/0.json", '{"shapes": [')
    write(tmp_path / "bad/notes.json", "{")  # about no image
    write(tmp_path / "good/0.json", '{"what": "a note"}')
    with pytest.raises(BadData, match=r"bad/0\.json is not valid JSON, so annotations are lost"):
        annotation_index.read(tmp_path, images, **LABELS)
    assert not annotation_index.read(tmp_path, images, "none", **LABELS).of
    write(tmp_path / "bad/0.json", labelme("dent"))
    assert set(annotation_index.read(tmp_path, images, **LABELS).of) == {"bad/0.png"}


def test_two_files_about_one_image_are_an_error(tmp_path, images):
    write(tmp_path / "a.json", coco(a="bad/0.png"))
    write(tmp_path / "b.json", coco(a="bad/0.png", b="bad/1.png"))
    with pytest.raises(BadData, match="a.json and b.json both annotate bad/0.png"):
        annotation_index.read(tmp_path, images)
    assert set(annotation_index.read(tmp_path, images, "b.json").of) == {"bad/0.png", "bad/1.png"}


class TestGivenFiles:
    def test_a_file_or_a_folder_outside_is_read(self, tmp_path, images):
        other = tmp_path / "elsewhere"
        write(other / "a.json", coco(a="bad/0.png"))
        for given in ("elsewhere/a.json", str(other / "a.json"), "elsewhere", str(other)):
            assert list(annotation_index.read(tmp_path, images, given).of) == ["bad/0.png"]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("nothing.json", "there is no file or folder"),
            ("good", "holds no annotation files"),
            ("list.json", "is no annotation file. LabelMe and COCO"),
            ("voc.xml", "holds annotations of Pascal VOC, which are boxes. LabelMe"),
            ("other.json", "annotates none of the 3 images: their names are others"),
            ("bad/0.json", "is not a LabelMe file that can be read"),
        ],
    )
    def test_one_that_cannot_be_used_is_an_error(self, tmp_path, images, given, said):
        write(tmp_path / "list.json", "[" * 100_000)
        write(tmp_path / "voc.xml", "<annotation><object/></annotation>")
        write(tmp_path / "other.json", coco(a="c.png"))
        write(tmp_path / "bad/0.json", {"shapes": 3, "imagePath": "0.png"})
        with pytest.raises(BadData, match=said):
            annotation_index.read(tmp_path, images, given)


def test_an_image_of_another_size_is_an_error_in_one_sentence(tmp_path, images):
    write(tmp_path / "bad/0.json", labelme("dent"))
    found = annotation_index.read(tmp_path, images)
    with pytest.raises(BadData, match=r"was made for bad/0.png of 20x28 \(height x width\), but the image is 40x56.$"):
        found.defects("bad/0.png", (40, 56))
