import json

import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw_mask
from iadbe.errors import BadData
from iadbe.files.region_files import RegionFiles, fitted

IMAGES = ["good/0.png", "good/1.png", "bad/dent/0.png"]
TWO = {"can/0.png": "can", "can/1.png": "can", "lid/0.png": "lid"}
SIZE = (20, 28)
SQUARE = [[5, 4], [14, 4], [14, 7], [5, 7]]  # the pixels of draw_mask
INNER = np.zeros(SIZE, bool)
INNER[4:8, 5:15] = True


def labelme(points=SQUARE, name="0.png", **size):
    size = size or {"imageHeight": 20, "imageWidth": 28}
    return {"shapes": [{"label": "x", "points": points}], "imagePath": name, **size}


def coco(*names):
    box = {"category_id": 1, "bbox": [5, 4, 9, 3]}
    return {
        "images": [{"id": n, "file_name": name, "height": 20, "width": 28} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, **box} for n in range(len(names))],
        "categories": [{"id": 1, "name": "part"}],
    }


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(file)


def region(root, **given):
    return RegionFiles(root, dict.fromkeys(IMAGES, "part"), **given)


class TestOneForAllImages:
    @pytest.mark.parametrize("value", [1, 255])
    def test_a_mask_is_read_as_ground_truth_is(self, tmp_path, value):
        draw_mask(tmp_path / "roi.png", value=value)
        found = region(tmp_path, roi="roi.png")
        assert found.is_common
        assert all(np.array_equal(found.of(image, SIZE), INNER) for image in IMAGES)
        assert np.array_equal(region(tmp_path, ignore="roi.png").of(IMAGES[0], SIZE), ~INNER)

    def test_a_palette_mask_too(self, tmp_path):
        image = Image.new("P", (28, 20))
        image.putpalette([0, 0, 0, 200, 30, 30])
        image.paste(1, (5, 4, 15, 8))
        image.save(tmp_path / "roi.png")
        assert np.array_equal(region(tmp_path, roi="roi.png").of(IMAGES[0], SIZE), INNER)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("roi.json", labelme()),
            ("roi.json", coco("elsewhere.png")),
            ("roi.json", [SQUARE]),
            ("roi.yaml", f"- {SQUARE}"),
            ("roi.yaml", "- [[5, 4], [9, 4], [9, 7], [5, 7]]\n- [[9, 4], [14, 4], [14, 7], [9, 7]]"),
            (
                "roi.xml",
                '<annotations><image name="a"><box label="x" xtl="5" ytl="4" xbr="14" ybr="7"/></image></annotations>',
            ),
        ],
    )
    def test_shapes_of_every_format(self, tmp_path, name, content):
        write(tmp_path / name, content)
        found = region(tmp_path, roi=name)
        assert np.array_equal(found.of(IMAGES[1], SIZE), INNER)

    def test_what_is_ignored_is_taken_from_the_region_of_interest(self, tmp_path):
        draw_mask(tmp_path / "roi.png")
        write(tmp_path / "ignore.json", [[[5, 4], [9, 4], [9, 7], [5, 7]]])
        expected = INNER.copy()
        expected[:, :10] = False
        found = region(tmp_path, roi="roi.png", ignore="ignore.json")
        assert np.array_equal(found.of(IMAGES[0], SIZE), expected)

    def test_it_is_found_from_the_data_or_from_here(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        draw_mask(tmp_path / "here/roi.png")
        monkeypatch.chdir(tmp_path / "here")
        assert region(tmp_path, roi="roi.png").is_common
        with pytest.raises(BadData, match="there is no file or folder .*other.png or .*other.png, which the region"):
            region(tmp_path, roi="other.png")


class TestByImage:
    def test_masks_are_found_by_path_or_name(self, tmp_path):
        for name in ("good/0_mask.png", "1.png", "dent/0.png"):
            draw_mask(tmp_path / "rois" / name)
        found = region(tmp_path, roi="rois")
        assert not found.is_common
        assert all(np.array_equal(found.of(image, SIZE), INNER) for image in IMAGES)

    def test_a_region_of_interest_needs_every_image_and_what_is_ignored_does_not(self, tmp_path):
        draw_mask(tmp_path / "rois/good/0.png")
        (tmp_path / "rois/x.png").write_bytes((tmp_path / "rois/good/0.png").read_bytes())
        with pytest.raises(BadData, match="rois says nothing about good/1.png"):
            region(tmp_path, roi="rois").of("good/1.png", SIZE)
        found = region(tmp_path, ignore="rois")
        assert found.of("good/1.png", SIZE) is None
        assert np.array_equal(found.of("good/0.png", SIZE), ~INNER)

    @pytest.mark.parametrize("content", [coco(*IMAGES), {name: [SQUARE] for name in IMAGES}])
    def test_shapes_by_the_names_of_images(self, tmp_path, content):
        write(tmp_path / "roi.json", content)
        found = region(tmp_path, roi="roi.json")
        assert not found.is_common
        assert all(np.array_equal(found.of(image, SIZE), INNER) for image in IMAGES)


class TestByCategory:
    def test_the_images_of_a_category_have_its_polygons_and_others_count_whole(self, tmp_path):
        write(tmp_path / "roi.json", {"can": {"size": [28, 20], "polygons": [SQUARE]}})
        found = RegionFiles(tmp_path, TWO, roi="roi.json")
        assert found.is_common
        assert np.array_equal(found.of("can/0.png", SIZE), INNER)
        assert np.array_equal(found.of("can/1.png", (40, 56)), INNER.repeat(2, 0).repeat(2, 1))
        assert found.of("lid/0.png", SIZE) is None

    def test_with_an_ignored_area_of_another_category(self, tmp_path):
        write(tmp_path / "roi.yaml", f"can: [{SQUARE}]")
        write(tmp_path / "ignore.yaml", f"lid: [{SQUARE}]")
        found = RegionFiles(tmp_path, TWO, roi="roi.yaml", ignore="ignore.yaml")
        assert np.array_equal(found.of("can/0.png", SIZE), INNER)
        assert np.array_equal(found.of("lid/0.png", SIZE), ~INNER)

    def test_categories_and_images_together_need_every_image_of_the_rest(self, tmp_path):
        write(tmp_path / "roi.json", {"can": [SQUARE], "lid/0.png": [SQUARE]})
        found = RegionFiles(tmp_path, {**TWO, "lid/1.png": "lid"}, roi="roi.json")
        assert not found.is_common
        assert np.array_equal(found.of("lid/0.png", SIZE), INNER)
        with pytest.raises(BadData, match="says nothing about lid/1.png"):
            found.of("lid/1.png", SIZE)

    def test_the_digest_is_that_of_the_categories_asked_for(self, tmp_path):
        found = []
        for can in (SQUARE, SQUARE[:3]):
            write(tmp_path / "roi.json", {"can": [can], "lid": [SQUARE]})
            files = RegionFiles(tmp_path, {**TWO, "cap/0.png": "cap"}, roi="roi.json")
            found.append([files.digest([name]) for name in ("can/0.png", "lid/0.png", "cap/0.png")])
        assert found[0][0] != found[1][0]
        assert found[0][1] == found[1][1] != ""
        assert found[0][2] == ""  # as without a region


class TestSizes:
    def test_the_same_proportions_are_resized_and_others_are_an_error(self):
        assert np.array_equal(fitted(INNER, (40, 56), "roi.png"), INNER.repeat(2, 0).repeat(2, 1))
        assert fitted(INNER, (7, 10), "roi.png").shape == (7, 10)  # rounded
        with pytest.raises(BadData, match=r"roi.png is a region of 20x28 \(height x width\), but an image is 28x28."):
            fitted(INNER, (28, 28), "roi.png")

    def test_shapes_are_drawn_at_the_size_that_their_file_states(self, tmp_path):
        write(tmp_path / "roi.json", labelme())
        found = region(tmp_path, roi="roi.json").of(IMAGES[0], (40, 56))
        assert np.array_equal(found, INNER.repeat(2, 0).repeat(2, 1))


class TestDigest:
    def test_it_is_that_of_the_content_whatever_the_name(self, tmp_path):
        draw_mask(tmp_path / "a.png")
        draw_mask(tmp_path / "b.png")
        draw_mask(tmp_path / "c.png", value=200)
        digests = [region(tmp_path, roi=name).digest(IMAGES) for name in ("a.png", "b.png", "c.png")]
        assert digests[0] == digests[1] != digests[2]
        assert region(tmp_path, ignore="a.png").digest(IMAGES) != digests[0]

    def test_of_masks_by_name_it_is_that_of_the_images_asked_for(self, tmp_path):
        for name in ("good/0.png", "good/1.png", "dent/0.png"):
            draw_mask(tmp_path / "rois" / name)
        before = [region(tmp_path, roi="rois").digest(some) for some in (IMAGES[:2], IMAGES)]
        draw_mask(tmp_path / "rois/dent/0.png", value=7)
        after = [region(tmp_path, roi="rois").digest(some) for some in (IMAGES[:2], IMAGES)]
        assert before[0] == after[0]
        assert before[1] != after[1]


BOMB = "a: &a [1, 2]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("roi.yaml", "a: [", "cannot be read as YAML"),
        ("roi.yaml", BOMB, "holds no polygons that can be read"),
        ("roi.yaml", "text", "a list of polygons is missing"),
        ("roi.yaml", "- [[1, 2], [3, 4]]", "at least three corners"),
        ("roi.yaml", "- [[1, 2, 3], [3, 4], [5, 6]]", "holds no polygons that can be read"),
        ("roi.json", {"other.png": [SQUARE]}, "is about none of the 3 images"),
        ("roi.json", {"0.png": [SQUARE]}, "is the name of 2 images"),
        ("roi.json", coco(), "holds no shapes"),
        ("roi.json", {"part": {"size": [28], "polygons": [SQUARE]}}, "a size is .width, height. in pixels"),
        ("roi.json", {"part": {"size": [28, 1e9], "polygons": [SQUARE]}}, "a size is .width, height. in pixels"),
        ("roi.json", {"part": {"size": [28, 20]}}, "a list of polygons is missing"),
        ("roi.txt", "1 2 3", "is no annotation file"),
        ("rois/5.txt", "", "holds masks of none of the 3 images"),
    ],
)
def test_what_cannot_be_used_is_an_error_in_one_sentence(tmp_path, name, content, said):
    write(tmp_path / name, content)
    with pytest.raises(BadData, match=said):
        region(tmp_path, roi=name.partition("/")[0])
