import base64
import io
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from iadbe.errors import BadData
from iadbe.files import shapes
from iadbe.files.shapes import EncodedMask, Polygon, RunLengths, rasterise


def drawn(*given, size=(20, 30)):
    return rasterise(given, *size, "a.json")


def polygon(*corners, **how):
    return Polygon("dent", np.array(corners, float), **how)


class TestBorder:
    def test_corners_are_rounded_down_and_the_outline_belongs_to_the_shape(self):
        expected = np.zeros((20, 30), bool)
        expected[3:8, 2:11] = True
        assert np.array_equal(drawn(polygon((2.9, 3.2), (10.9, 3.2), (10.1, 7.7), (2.1, 7.7))), expected)

    def test_a_shape_of_the_whole_image_ends_at_its_last_pixels(self):
        assert drawn(polygon((0, 0), (30, 0), (30, 20), (0, 20))).all()

    def test_it_is_what_labelme_exports(self):
        corners = [(3.6, 2.2), (22.4, 5.9), (17.2, 16.8), (11.5, 9.1), (5.0, 17.3)]
        theirs = Image.new("L", (30, 20))
        ImageDraw.Draw(theirs).polygon(corners, outline=1, fill=1)  # labelme.utils.shape_to_mask
        assert np.array_equal(drawn(polygon(*corners)), np.asarray(theirs) > 0)

    def test_lines_are_one_pixel_wide_and_points_one_pixel(self):
        assert drawn(polygon((2, 4), (9, 4), closed=False)).sum() == 8
        assert drawn(polygon((2, 4), (9, 4), (20, 11), joined=False)).sum() == 3


def test_shapes_are_united_and_cut_off_at_the_image():
    mask = drawn(polygon((-5, -5), (4, -5), (4, 4), (-5, 4)), polygon((3, 3), (6, 3), (6, 6), (3, 6)))
    expected = np.zeros((20, 30), bool)
    expected[:5, :5] = expected[3:7, 3:7] = True
    assert np.array_equal(mask, expected)


def test_an_ellipse_is_within_a_pixel_of_its_formula():
    mask = drawn(Polygon("dent", shapes.ellipse((100, 60), (80, 30), 30)), size=(130, 200))
    y, x = np.mgrid[:130, :200] + 0.5
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    along, across = (x - 100) * cos + (y - 60) * sin, -(x - 100) * sin + (y - 60) * cos  # clockwise, y goes down
    inner = (along / 78.5) ** 2 + (across / 28.5) ** 2 <= 1
    outer = (along / 81.5) ** 2 + (across / 31.5) ** 2 <= 1
    assert mask[inner].all()
    assert not mask[~outer].any()


def test_a_turned_rectangle_goes_clockwise():
    corners = shapes.rectangle(10, 10, 20, 10, 90)
    assert np.allclose(corners, [[15, 5], [15, 15], [15, 15], [15, 5]])


class TestRunLengths:
    def test_they_go_down_the_columns_or_along_the_rows(self):
        mask = np.zeros((4, 5), bool)
        mask[1:3, 2] = mask[0, 4] = True
        columns = RunLengths("dent", np.array([9, 2, 5, 1, 3]), 4, 5, by_columns=True)
        assert np.array_equal(drawn(columns, size=(4, 5)), mask)
        rows = RunLengths("dent", np.array([4, 1, 2, 1, 4, 1, 7]), 4, 5)
        assert np.array_equal(drawn(rows, size=(4, 5)), mask)

    def test_one_of_a_part_lies_where_it_belongs(self):
        expected = np.zeros((20, 30), bool)
        expected[7:9, 12:15] = True
        assert np.array_equal(drawn(RunLengths("dent", np.array([0, 6]), 2, 3, left=12, top=7)), expected)

    @pytest.mark.parametrize("counts", [[5], [9, 12], [-1, 21], [10**15, -(10**15), 20], []])
    def test_one_that_does_not_fill_its_size_is_an_error(self, counts):
        code = RunLengths("dent", np.array(counts, np.int64), 4, 5)
        with pytest.raises(BadData, match="a.json has a run-length code of 'dent' that does not fill its size, 4x5"):
            drawn(code)

    def test_a_mask_for_another_size_is_an_error(self):
        with pytest.raises(BadData, match="a mask of 4x5 for an image of 20x30"):
            drawn(RunLengths("dent", np.array([20]), 4, 5, by_columns=True))
        with pytest.raises(BadData, match="reaches beyond its image of 20x30"):
            drawn(RunLengths("dent", np.array([20]), 4, 5, left=28))

    def test_the_compressed_code_is_that_of_the_coco_api(self):
        assert shapes.uncompressed("52203").tolist() == [5, 2, 2, 2, 5]  # from the fourth on, differences
        assert shapes.uncompressed("").tolist() == []
        for text in ("P", "é", "~", "o" * 40):
            with pytest.raises(ValueError, match="it "):
                shapes.uncompressed(text)

    def test_every_mask_has_its_runs(self):
        rng = np.random.default_rng(0)
        for mask in (rng.random((7, 9)) < 0.5, np.ones((7, 9), bool), np.zeros((7, 9), bool)):
            runs = shapes.runs_of(mask)
            assert np.array_equal(shapes.from_runs(RunLengths("x", runs, 7, 9), "a.json"), mask)

    def test_it_agrees_with_pycocotools(self):
        coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
        rng = np.random.default_rng(0)
        for share in (0.02, 0.5, 0.98):
            mask = rng.random((37, 301)) < share
            mask[:, 100:260] = share > 0.5  # long runs too
            text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            code = RunLengths("dent", shapes.uncompressed(text), 37, 301, by_columns=True)
            assert np.array_equal(drawn(code, size=(37, 301)), mask)


def test_pycocotools_draws_polygons_alike_but_for_their_border():
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    corners = [(30.5, 12.2), (180.4, 25.9), (157.2, 96.8), (101.5, 49.1), (25.0, 97.3)]
    text = coco.merge(coco.frPyObjects([np.ravel(corners).tolist()], 120, 200))["counts"].decode()
    theirs = drawn(RunLengths("dent", shapes.uncompressed(text), 120, 200, by_columns=True), size=(120, 200))
    ours = drawn(polygon(*corners), size=(120, 200))
    assert (ours | ~theirs).mean() > 0.999  # the outline is part of ours
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97


def test_a_mask_as_an_image_is_pasted_and_a_damaged_one_reported():
    data = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).save(data, "PNG")
    text = base64.b64encode(data.getvalue()).decode()
    assert np.argwhere(drawn(EncodedMask("dent", text, left=4, top=2))).tolist() == [[2, 5], [3, 4], [3, 5]]
    for bad in ("no base64!", base64.b64encode(b"GIF89a").decode(), text[:40]):
        with pytest.raises(BadData, match="a.json has a mask 'dent' that cannot be read"):
            drawn(EncodedMask("dent", bad, 0, 0))


@pytest.mark.parametrize("far", [1e9, -1e300, float("nan"), float("inf")])
def test_coordinates_far_outside_are_an_error(far):
    with pytest.raises(BadData, match="a.json has a shape 'dent' far outside of its image, which is 30 x 20"):
        drawn(polygon((0, 0), (far, 5), (5, 5)))


def test_many_polygons_take_seconds_and_too_many_large_ones_are_refused():
    corners = np.random.default_rng(0).uniform(0, 990, (100_000, 1, 2)) + np.array([[0, 0], [9, 2], [7, 8], [1, 5]])
    start = time.process_time()
    mask = drawn(*(Polygon("dent", one) for one in corners), size=(1000, 1000))
    assert 0.9 < mask.mean() < 1
    assert time.process_time() - start < 30
    whole = polygon((0, 0), (4000, 0), (4000, 4000), (0, 4000))
    with pytest.raises(BadData, match="more and larger shapes than can be drawn: save them as masks"):
        drawn(*[whole] * 100_000, size=(4000, 4000))
