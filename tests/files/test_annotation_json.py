import pytest

from iadbe.errors import BadData
from iadbe.files import annotation_json
from iadbe.files.shapes import rasterise


def labelme(*shapes, **more):
    return {"version": "5.4.1", "shapes": list(shapes), "imagePath": "0.png", **more}


def shape(kind, *points, label="dent"):
    return {"label": label, "points": [list(p) for p in points], "shape_type": kind}


IMAGES = ({"id": 7, "file_name": "0.png", "height": 20, "width": 30},)


def coco(*annotations, images=IMAGES):
    return {"images": list(images), "annotations": list(annotations), "categories": [{"id": 3, "name": "dent"}]}


def annotation(**given):
    return {"id": 1, "image_id": 7, "category_id": 3, **given}


def area(content, reader=annotation_json.read_labelme):
    found = reader(content, "a.json")
    return int(rasterise((found[0] if isinstance(found, list) else found).shapes, 20, 30, "a.json").sum())


@pytest.mark.parametrize(
    ("one", "pixels"),
    [
        (shape("polygon", (2, 3), (10, 3), (10, 7), (2, 7)), 45),
        (shape("rectangle", (10, 7), (2, 3)), 45),
        (shape("rectangle", (2, 3), (10, 3), (10, 7), (2, 7)), 45),
        (shape("rotation", (2, 3), (10, 3), (10, 7), (2, 7)), 45),
        (shape("circle", (10.5, 10.5), (10.5, 10.7)), 1),
        (shape("line", (2, 3), (10, 3)), 9),
        (shape("linestrip", (2, 3), (10, 3), (10, 7)), 13),
        (shape("point", (2, 3)), 1),
        (shape("points", (2, 3), (9, 9)), 2),
        (shape(None, (2, 3), (10, 3), (10, 7), (2, 7)), 45),
    ],
)
def test_every_type_of_labelme_has_its_pixels(one, pixels):
    assert area(labelme(one)) == pixels


def test_labelme_states_names_and_sizes():
    found = annotation_json.read_labelme(labelme(imageHeight=20, imageWidth=30), "a.json")
    assert (found.name, found.shapes, found.size) == ("0.png", (), (20, 30))
    assert annotation_json.read_labelme(labelme(), "a.json").size is None


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (shape("cube", (2, 3)), "shape_type 'cube' is not one of polygon"),
        (shape("circle", (2, 3)), "a circle has 2 points, not 1"),
        (shape("polygon"), "a shape has no points"),
        (shape("polygon", (1, 2), (3, float("nan")), (4, 5)), "a coordinate is not finite"),
        ({"points": [[1, 2]]}, "'label' is missing"),
        ("text", "indices"),
        (shape("polygon", ("a", "b")), "could not convert string to float"),
    ],
)
def test_a_shape_of_labelme_that_cannot_be_read_is_an_error(one, said):
    with pytest.raises(BadData, match="^a.json is not a LabelMe file that can be read: ") as raised:
        annotation_json.read_labelme(labelme(one), "a.json")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("given", "pixels"),
    [
        ({"segmentation": [[2, 3, 10, 3, 10, 7, 2, 7]]}, 45),
        ({"segmentation": [[2, 3, 4, 3, 4, 5, 2, 5], [10, 3, 12, 3, 12, 5, 10, 5]]}, 18),
        ({"segmentation": {"counts": [5, 2, 593], "size": [20, 30]}}, 2),
        ({"segmentation": {"counts": "52ab0", "size": [20, 30]}}, 2),
        ({"segmentation": [], "bbox": [2, 3, 8, 4]}, 45),
        ({"bbox": [0, 0, 30, 20]}, 600),
    ],
)
def test_polygons_run_lengths_and_boxes_of_coco(given, pixels):
    assert area(coco(annotation(**given)), annotation_json.read_coco) == pixels


def test_coco_has_all_images_with_their_own_shapes():
    images = [{"id": n, "file_name": f"{n}.png", "height": 20, "width": 30} for n in (7, 8)]
    found = annotation_json.read_coco(coco(annotation(bbox=[0, 0, 5, 5]), images=images), "a.json")
    assert [(f.name, len(f.shapes), f.size) for f in found] == [("7.png", 1, (20, 30)), ("8.png", 0, (20, 30))]
    assert found[0].shapes[0].label == "dent"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (coco(annotation(category_id=9, bbox=[1, 2, 3, 4])), "9 is missing or not known"),
        (coco(annotation()), "'bbox' is missing"),
        (coco(annotation(segmentation=[[1, 2, 3]])), "cannot reshape"),
        (coco(annotation(segmentation={"counts": "é", "size": [2, 2]})), "it holds the character"),
        (coco(annotation(segmentation={"counts": [10**30], "size": [2, 2]})), "int"),
        ({"images": 3, "annotations": [], "categories": []}, "iterable"),
    ],
)
def test_coco_that_cannot_be_read_is_an_error(content, said):
    with pytest.raises(BadData, match="^a.json is not a COCO file that can be read: ") as raised:
        annotation_json.read_coco(content, "a.json")
    assert said in str(raised.value)


def test_the_kinds_are_told_apart():
    assert annotation_json.is_labelme(labelme())
    assert annotation_json.is_coco(coco())
    assert not any(kind(other) for kind in (annotation_json.is_labelme, annotation_json.is_coco) for other in ([], {}))
