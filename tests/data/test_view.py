"""Geometry of views: what is seen where, and the way back to an image's own size."""

import numpy as np
import pytest

from iadbe.data.view import Placement, View, view_of
from iadbe.errors import BadConfig, BadData
from iadbe.protocol import Protocol


def striped(height, width):
    """Return an image (H, W, 3) whose red is the row and whose green is the column."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.zeros_like(x)], 2).astype(np.uint8)


class TestPlaces:
    def test_by_hand(self):
        assert View(32).placed(16, 64) == Placement(32, 32, 0, 0)
        assert View(32, crop=24).placed(16, 64) == Placement(32, 32, -4, -4)
        assert View(32, fit="pad").placed(16, 64) == Placement(8, 32, 12, 0)
        assert View(32, fit="crop").placed(16, 64) == Placement(32, 128, 0, -48)
        assert View(16, fit="pad", resize_width=64).placed(32, 32) == Placement(16, 16, 0, 24)
        assert View(16, fit="crop", resize_width=64).placed(32, 32) == Placement(64, 64, -24, 0)

    def test_no_side_passes_the_frame_and_none_is_empty(self):
        for height in range(1, 40):
            for width in (1, 7, 33, 500):
                padded = View(32, fit="pad").placed(height, width)
                assert min(padded[:2]) >= 1
                assert max(padded[:2]) == 32
                assert min(View(32, fit="crop").placed(height, width)[:2]) == 32

    def test_an_image_of_the_frame_s_aspect_is_seen_whole_however_it_fits(self):
        image = striped(24, 48)
        seen = [View(16, fit=fit, resize_width=32)(image) for fit in ("squash", "pad", "crop")]
        assert all((one == seen[0]).all() for one in seen)


class TestSeen:
    def test_padding_mirrors_the_border(self):
        seen = View(16, fit="pad")(striped(8, 16))
        assert seen.shape == (16, 16, 3)
        assert seen[:, 0, 0].tolist() == [3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4]
        assert seen[0, :, 1].tolist() == list(range(16))

    def test_a_very_long_image_is_mirrored_as_often_as_needed(self):
        assert View(16, fit="pad")(striped(1, 16))[:, 3, 0].tolist() == [0] * 16

    def test_a_crop_takes_the_centre(self):
        assert View(8, fit="crop")(striped(8, 16))[0, :, 1].tolist() == list(range(4, 12))

    def test_there_is_no_defect_and_no_depth_in_the_padding(self):
        view = View(16, fit="pad")
        mask = view(np.ones((8, 16), bool))
        assert (mask == view.content(8, 16)).all()
        assert mask.sum() == 8 * 16
        depth = view(np.ones((8, 16), np.float32))
        assert (np.isnan(depth) == ~mask).all()

    def test_content_is_none_where_all_pixels_show_the_image(self):
        assert View(16).content(8, 16) is None
        assert View(16, fit="crop").content(8, 16) is None
        assert View(16, fit="pad").content(20, 20) is None
        assert View(16, crop=8, fit="pad").content(8, 16) is None


class TestNative:
    @pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
    @pytest.mark.parametrize("size", [(40, 80), (80, 40), (64, 64), (33, 77)])
    def test_a_spot_comes_back_to_where_it_was(self, fit, size):
        image = np.zeros((*size, 3), np.uint8)
        middle = size[0] // 2, size[1] // 2 + 3
        image[middle[0] - 2 : middle[0] + 3, middle[1] - 2 : middle[1] + 3] = 255
        view = View(48, fit=fit, resize_width=64)
        map_ = view(image)[:, :, 0].astype(np.float32)
        back = view.to_native(map_, size)
        assert back.shape == size
        found = np.argwhere(back > back.max() / 2).mean(0)
        assert np.abs(found - middle).max() < 0.75

    def test_padding_is_never_mixed_in(self):
        view = View(16, fit="pad")
        map_ = np.full((16, 16), 9, np.float32)
        map_[4:12] = 1
        assert (view.to_native(map_, (50, 100)) == 1).all()

    def test_what_is_cut_off_has_the_lowest_value(self):
        view = View(8, fit="crop")
        map_ = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
        back = view.to_native(map_, (8, 16))
        assert (back[:, 4:12] == map_).all()
        assert (back[:, :4] == 1).all()
        assert (back[:, 12:] == 1).all()

    def test_a_crop_after_squashing_comes_back_too(self):
        view = View(16, crop=8)
        back = view.to_native(np.full((8, 8), 5, np.float32) + np.eye(8, dtype=np.float32), (16, 16))
        assert (back[4:12, 4:12] == 5 + np.eye(8)).all()
        assert back[0, 0] == back[3, 8] == 5

    def test_the_result_may_have_any_size(self):
        view = View(16, fit="pad")
        map_ = np.zeros((16, 16), np.float32)
        map_[4:12, 8:] = 1
        assert view.to_native(map_, (50, 100), (4, 8)).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 4


def test_sides_and_square():
    assert View(256).size == View(256).shape[0] == 256
    assert View(300, crop=224).size == 224
    assert View(256, resize_width=512).shape == (256, 512)
    assert str(View(256, resize_width=512)) == "256 x 512"
    with pytest.raises(BadConfig, match=r"not one of 256 x 512 pixels \(height x width\)"):
        _ = View(256, resize_width=512).size


@pytest.mark.parametrize("wrong", [{"fit": "stretch"}, {"resize_width": 4}, {"crop": 100, "resize_width": 64}])
def test_an_impossible_view_is_refused(wrong):
    with pytest.raises(BadConfig, match="is not possible"):
        View(**wrong)


def test_a_protocol_has_a_view():
    assert view_of(Protocol(), {}) == View(256)
    assert view_of(Protocol.parse("uniform@512x128,pad"), {}) == View(128, fit="pad", resize_width=512)
    assert view_of(Protocol.parse("paper,native"), {"resize": 256, "crop": 224}) == View(256, 224)


def test_a_native_view_has_the_size_of_the_images():
    native = Protocol.parse("uniform@native")
    assert view_of(native, {}, iter([(512, 256)] * 3)) == View(512, resize_width=256)
    assert view_of(native, {}, [(300, 300)]) == View(300)
    with pytest.raises(BadData, match="3 sizes, from 40 x 50 to 90 x 50 .* Take --size 90x80 --fit pad"):
        view_of(native, {}, [(50, 40), (80, 40), (50, 90)])
    with pytest.raises(BadData, match="needs images"):
        view_of(native, {})
