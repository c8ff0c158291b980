import shutil

import numpy as np
import pytest

from dataset_trees import draw, draw_mask, draw_video, frames
from iadbe.data import resolve
from iadbe.datasets.frames import Frames
from iadbe.errors import BadConfig, BadData


def numbers(dataset, clip, kind):
    return [int(s.image.rpartition("frame")[2][:-4]) for s in dataset.samples() if clip in s.image and s.defect == kind]


def test_frames_have_their_natural_order_and_clips_stay_whole(tmp_path):
    dataset = Frames(**frames(tmp_path), name="line")
    assert dataset.categories == ("line",)
    train = [s.image for s in dataset.samples() if s.split == "train"]
    assert train == [f"train/good/{clip}/frame{i}.png" for clip in "ab" for i in range(1, 13)]
    assert {s.image.split("/")[2] for s in dataset.samples() if s.split == "test"} == set("cdef")


def test_masks_then_labels_then_the_folder_tell_which_frames_are_defective(tmp_path):
    dataset = Frames(**frames(tmp_path))
    assert numbers(dataset, "good/c", "good") == [*range(1, 13)]
    assert numbers(dataset, "jam/d", "jam") == [9, 10, 11]  # those with a mask
    assert numbers(dataset, "jam/e", "jam") == [1, 2, 12]  # labels.csv counts from 0
    assert numbers(dataset, "jam/f", "jam") == [*range(1, 13)]
    assert numbers(dataset, "jam/d", "good") == [1, 2, 3, 4, 5, 6, 7, 8, 12]
    masked = [s for s in dataset.samples() if s.mask]
    assert [s.mask for s in masked] == [f"ground_truth/jam/d/frame{i}.png" for i in (9, 10, 11)]


def test_without_good_clips_the_end_of_each_is_held_out_in_one_piece(tmp_path):
    given = frames(tmp_path)
    shutil.rmtree(tmp_path / "test/good")
    dataset = Frames(**given, normal_split_ratio=0.25)
    for clip in "ab":
        mine = [s.split for s in dataset.samples() if s.image.startswith(f"train/good/{clip}")]
        assert mine == ["train"] * 9 + ["test"] * 3
    assert {s.split for s in Frames(**given, normal_split_ratio=0).samples() if s.defect == "good"} == {"train", "test"}


def test_one_frame_of_so_many_is_taken(tmp_path):
    dataset = Frames(**frames(tmp_path), every=5)
    assert numbers(dataset, "good/a", "good") == [1, 6, 11]
    assert numbers(dataset, "jam/e", "jam") == [1]  # number 11, the last one, is not taken
    with pytest.raises(BadConfig, match=r"frames\.every is 0"):
        Frames(str(tmp_path), every=0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("jam/e,0", "line 4 .* is not"),
        ("jam/e,a,b", "line 4 .* is not"),
        ("jam/e,5,3", "line 4 .* is not"),
        ("jam/e,-1,3", "line 4 .* is not"),
        ("jam/x,0,1", "names jam/x, which"),
    ],
)
def test_false_labels_are_reported(tmp_path, line, said):
    given = frames(tmp_path)
    with (tmp_path / "labels.csv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(BadData, match=rf"labels\.csv.*{said}"):
        Frames(**given).samples()


def test_all_false_labels_are_named_and_their_clips_may_be_left_out(tmp_path):
    given = frames(tmp_path)
    before = {s.image for s in Frames(**given).samples()}
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("jam/e,a,b\njam/x,0,1\n")
    with pytest.raises(BadData) as error:
        Frames(**given).samples()
    assert "line 4 ('jam/e,a,b')" in str(error.value)
    assert "line 5 names jam/x" in str(error.value)
    kept = {s.image for s in Frames(**given, bad_labels="drop").samples()}
    assert before - kept == {image for image in before if image.startswith("test/jam/e/")} != set()
    assert kept < before


def test_what_was_looked_for_is_reported(tmp_path):
    draw(tmp_path / "good/0.png")
    with pytest.raises(BadData, match=r"found no clip in .*train/good: looked for videos .* holds good/"):
        Frames(str(tmp_path))
    assert [s.image for s in Frames(str(tmp_path), train="good").samples()] == ["good/0.png"]


@pytest.fixture
def videos(tmp_path):
    draw_video(tmp_path / "train/good/a.mp4", "mpeg4", range(0, 60, 2))
    draw_video(tmp_path / "test/good/b.mp4", "mpeg4", range(0, 40, 2))
    draw_video(tmp_path / "test/jam/c.mp4", "mpeg4", range(0, 40, 2))
    draw_mask(tmp_path / "ground_truth/jam/c/000007.png", size=(32, 48))
    return tmp_path


def test_videos_are_read_frame_by_frame(videos):
    found = resolve.find(str(videos))
    assert found.name == "frames"
    dataset = resolve.make(found.name, found.params)
    count = [(s.split, s.defect) for s in dataset.samples()].count
    assert (count(("train", "good")), count(("test", "good")), count(("test", "jam"))) == (30, 39, 1)
    (jam,) = [s for s in dataset.samples() if s.is_anomaly]
    assert jam.image == "test/jam/c.mp4#000007"
    assert dataset.image(jam).shape == (*dataset.mask(jam).shape, 3) == (32, 48, 3)
    for i in (3, 29, 4):
        assert abs(dataset.image(dataset.samples()[i]).mean() - 2 * i) < 1.5


def test_another_video_of_the_name_is_another_dataset(videos):
    before = Frames(str(videos)).digest()
    assert before == Frames(str(videos)).digest()
    file = videos / "test/good/b.mp4"
    file.write_bytes(file.read_bytes() + bytes(100))
    assert Frames(str(videos)).digest() != before


def test_a_video_or_a_folder_of_them_is_recognised(videos):
    one = resolve.find(str(videos / "train/good/a.mp4"))
    assert (one.name, one.params) == ("frames", {"root": str(videos / "train/good"), "train": "a.mp4"})
    several = resolve.find(str(videos / "train/good"))
    assert (several.name, several.params["train"]) == ("frames", ".")
    for found in (one, several):
        samples = resolve.make(found.name, found.params).samples()
        assert [s.split for s in samples] == ["train"] * 24 + ["test"] * 6
        assert samples[0].image == "a.mp4#000000"


def test_parts_of_other_layouts_are_no_clips(tmp_path):
    for place in ("train/good/rgb", "train/good/xyz", "test/hole/rgb"):
        draw(tmp_path / place / "0.png")
    assert Frames.recognise(tmp_path) is None
    draw(tmp_path / "more/train/good/0.png")
    assert Frames.recognise(tmp_path / "more") is None


def test_images_with_a_number_sign_are_images(tmp_path):
    draw(tmp_path / "train/good/a/x#1.png")
    dataset = Frames(str(tmp_path))
    assert dataset.image(dataset.samples()[0]).shape == (20, 28, 3)
    assert np.array_equal(dataset.image(dataset.samples()[0]), dataset.image(dataset.samples()[0]))
