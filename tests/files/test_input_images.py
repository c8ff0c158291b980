import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_trees import draw, draw_video
from iadbe.errors import BadConfig, BadData
from iadbe.files.input_images import expand, frames_of, inputs_of


@pytest.fixture
def files(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 12, 3), 7, np.uint8)).save(tmp_path / name)
    return tmp_path


def test_inputs_are_taken_once_and_in_order(files):
    found = inputs_of([files / "a", files / "a/0.png", str(files / "*/0.png")])
    assert [image.path.relative_to(files).as_posix() for image in found] == ["a/0.png", "a/1.png", "b/0.png"]
    assert found[0].read(None)[0].shape == (8, 12, 3)
    assert [p.name for p in expand([files / "a"])] == ["0.png", "1.png"]


def test_inputs_that_match_nothing_are_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadConfig, match="has no images or videos in it"):
        inputs_of(tmp_path / "empty")
    with pytest.raises(BadConfig, match="no pattern"):
        inputs_of(tmp_path / "*.png")


def test_a_broken_video_spoils_no_other_input(tmp_path):
    pytest.importorskip("av")
    draw(tmp_path / "a.png")
    whole = draw_video(tmp_path / "b.avi", "mpeg4", range(0, 200, 2)).read_bytes()
    (tmp_path / "c.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.mp4").write_text("no video")
    found = inputs_of(tmp_path)  # images and videos of a folder alike
    names = [image.path.name for image in found]
    kept = sum(name.startswith("c.avi") for name in names) - 1
    assert 10 < kept < 90
    assert names == [
        "a.png",
        *(f"b.avi#{n:04}" for n in range(100)),
        *(f"c.avi#{n:04}" for n in range(kept + 1)),
        "d.mp4",
    ]
    assert found[-3].read(None)[0].shape == (32, 48, 3)
    with pytest.raises(BadData, match=rf"c\.avi ends after {kept} of 100 frames: it is truncated"):
        found[-2].read(None)
    with pytest.raises(BadData, match="cannot be read as a video"):
        found[-1].read(None)


def test_arrays_and_pillow_images_are_inputs():
    grey, rgb = np.full((4, 6), 9, np.uint8), np.zeros((4, 6, 3), np.uint8)
    found = inputs_of([grey, rgb, Image.fromarray(grey), Image.new("RGBA", (6, 4)), grey[:, :, None]])
    assert [str(image.path) for image in found] == [f"array_{n}" for n in range(5)]
    assert all(image.read(None)[0].shape == (4, 6, 3) and image.read(None)[0].dtype == np.uint8 for image in found)
    assert (found[0].read(None)[0] == 9).all()
    assert len(inputs_of(rgb)) == len(inputs_of(Image.fromarray(rgb))) == 1
    assert len(inputs_of(np.zeros((5, 4, 6, 3), np.uint8))) == 5


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 6), np.float32), np.zeros((4, 6, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_an_array_whose_meaning_is_not_clear_is_one_sentence(wrong):
    (image,) = inputs_of([wrong])
    with pytest.raises(BadData, match="must be uint8 of shape"):
        image.read(None)
    (image,) = inputs_of([Image.new("I;16", (6, 4))])
    with pytest.raises(BadData, match="mode I;16. Convert it to 8 bits"):
        image.read(None)


@pytest.mark.parametrize("wrong", [None, 5, [b"x"], [None], [[1, 2]]])
def test_what_is_no_image_is_one_sentence(wrong):
    with pytest.raises(BadConfig, match=r"images are paths, arrays or images of Pillow, not|is of the type"):
        inputs_of(wrong)


def test_a_tiff_of_several_pages_is_read_page_by_page(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", np.full((8, 12), 7, np.uint16))
    stack = np.arange(3, dtype=np.uint8)[:, None, None] * np.full((3, 8, 12), 50, np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    found = inputs_of(tmp_path)
    assert [i.path.name for i in found] == ["one.tif", "stack.tif#0000", "stack.tif#0001", "stack.tif#0002"]
    assert found[3].read(None)[0].tolist() == np.full((8, 12, 3), 100).tolist()
    (page,) = inputs_of(tmp_path / "stack.tif#0001")
    assert page.read(None)[0].max() == 50
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    assert [i.path.name for i in inputs_of(tmp_path / "broken.tif")] == ["broken.tif"]


def test_a_video_is_read_frame_by_frame(tmp_path):
    pytest.importorskip("av")
    draw_video(tmp_path / "line.mp4", "mpeg4", [20, 120, 220])
    found = inputs_of(tmp_path / "line.mp4")
    assert [image.path.name for image in found] == ["line.mp4#0000", "line.mp4#0001", "line.mp4#0002"]
    assert [image.path for image in frames_of(tmp_path / "line.mp4")] == [image.path for image in found]
    assert found[2].read(None)[0].ndim == 3
