from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iadbe.data import alignment
from iadbe.data.alignment import Pose, Template, counted, covered, restored, warped
from iadbe.datasets.toy import Toy
from iadbe.errors import BadData, Missing
from iadbe.protocol import Limits

pytest.importorskip("cv2", reason="alignment needs OpenCV: pip install 'iadbe[align]'")

REAL = Path(__file__).parents[3] / "shared/data/mvtec_ad"
LIMITS = Limits(rotation=45, shift=0.15)


def washers(count):
    toy = Toy()
    return [toy.image(s) for s in toy.samples() if s.category == "washer" and s.split == "train"][:count]


def photographs(category, count):
    folder = REAL / category / "train/good"
    if not folder.is_dir():
        pytest.skip(f"the real images of {category} are not here")
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())[:count]]


def moved(image, degrees, shift=(0.0, 0.0), scale=1.0):
    """Return the image as if the part lay elsewhere, and the matrix from its pixels to those of the image."""
    matrix = alignment._similarity(image.shape[:2], degrees, scale, shift)
    return warped(image, Pose(matrix, 1.0, True), image.shape[:2]), matrix


def together(first, second):
    return (np.vstack([first, [0, 0, 1]]) @ np.vstack([second, [0, 0, 1]]))[:2]


def errors(template, image, degrees, shift, scale=1.0):
    """Return by how many degrees, pixels (at the centre) and shares of the size the known movement is missed."""
    before = template.register(image)
    turned, matrix = moved(image, degrees, shift, scale)
    after = template.register(turned)
    found = Pose(together(matrix, after.matrix), after.correlation, after.found)
    centre = np.array([(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2, 1])
    return (
        abs(found.rotation - before.rotation),
        np.abs(found.matrix @ centre - before.matrix @ centre).max(),
        abs(found.scale / before.scale - 1),
        before.found and after.found,
    )


def movements(count, seed=0):
    """Return rotations up to 25 degrees and shifts up to a tenth of 256 pixels."""
    rng = np.random.default_rng(seed)
    return [(rng.uniform(-25, 25), tuple(rng.uniform(-25, 25, 2))) for _ in range(count)]


def test_a_pose_has_the_rotation_and_scale_of_its_matrix():
    matrix = alignment._similarity((80, 100), degrees=20, scale=1.1, shift=(3, -4))
    pose = Pose(matrix, 1.0, True)
    assert pose.rotation == pytest.approx(20)
    assert pose.scale == pytest.approx(1.1)
    centre = np.array([49.5, 39.5, 1])
    cos, sin = 1.1 * np.cos(np.radians(20)), 1.1 * np.sin(np.radians(20))
    np.testing.assert_allclose(pose.matrix @ centre, [49.5 + 3 * cos + 4 * sin, 39.5 + 3 * sin - 4 * cos])


def test_drawn_parts_are_found_to_a_fraction_of_a_pixel():
    images = washers(12)
    template = Template.learn(images[4:], Limits(rotation=60, shift=0.15))
    for image, (degrees, shift) in zip(images[:4], movements(4), strict=True):
        angle, pixels, _, found = errors(template, image, degrees, shift)
        assert angle < 0.2
        assert pixels < 0.5
        assert found


def test_the_frame_is_where_most_parts_lie():
    (washer,) = washers(1)
    places = [(25, -20), (1, 2), (-2, 0), (0, -1), (2, 1)]
    images = [moved(washer, angle, place)[0] for angle, place in zip((9, 1, 0, -1, 0), places, strict=True)]
    template = Template.learn(images, Limits(rotation=12, shift=0.15))
    pose = template.register(washer)
    assert abs(pose.rotation) < 1.5
    assert np.abs(pose.matrix @ [127.5, 127.5, 1] - 127.5).max() < 3


@pytest.mark.slow
def test_transistors_are_found_within_a_degree_and_two_pixels():
    images = photographs("transistor", 14)
    template = Template.learn(images[6:], LIMITS)
    for image, (degrees, shift) in zip(images[:6], movements(6), strict=True):
        angle, pixels, _, found = errors(template, image, degrees, shift)
        assert angle < 1
        assert pixels < 2
        assert found


@pytest.mark.slow
def test_bottles_are_found_within_two_pixels_and_turned_as_far_as_their_light_shows():
    images = photographs("bottle", 16)
    template = Template.learn(images[6:], LIMITS)
    missed = [errors(template, image, *movement) for image, movement in zip(images[:6], movements(6), strict=True)]
    assert all(pixels < 2 and found for _, pixels, _, found in missed)
    assert np.median([angle for angle, *_ in missed]) < 1.5  # from above a bottle looks alike in all directions


@pytest.mark.slow
def test_a_change_of_scale_is_found_within_limits():
    images = photographs("transistor", 10)
    template = Template.learn(images[4:], Limits(rotation=20, shift=0.1, scale=0.1))
    angle, pixels, scale, found = errors(template, images[0], 10, (10, -5), 1.07)
    assert angle < 1
    assert pixels < 2
    assert scale < 0.01
    assert found


def test_what_is_no_part_is_not_found():
    images = washers(8)
    template = Template.learn(images, LIMITS)
    noise = np.random.default_rng(0).integers(0, 256, images[0].shape, np.uint8)
    for image in (noise, np.full_like(images[0], 128)):
        assert template.register(image).found is False
    turned = template.register(moved(images[0], 75)[0])  # fits more or less
    assert isinstance(turned.found, bool)  # not NumPy's: `is False` decides whether there is a verdict


def test_a_part_beyond_the_limits_is_not_found():
    images = washers(8)
    template = Template.learn(images, Limits(rotation=10, shift=0.05))
    far, _ = moved(images[0], 0, (60, 0))
    assert not template.register(far).found


def test_images_of_another_size_are_registered_in_their_own_pixels():
    images = washers(6)
    template = Template.learn(images, Limits(rotation=6, shift=0.05))
    large = np.asarray(Image.fromarray(images[0]).resize((512, 512), Image.Resampling.BILINEAR))
    pose, double = template.register(images[0]), template.register(large)
    np.testing.assert_allclose(double.matrix[:, :2], 2 * pose.matrix[:, :2], atol=0.02)
    centre = np.array([127.5, 127.5, 1])
    np.testing.assert_allclose(double.matrix @ centre, 2 * (pose.matrix @ centre) + 0.5, atol=1)


def test_images_masks_and_maps_follow_the_pose():
    image = np.zeros((20, 30, 3), np.uint8)
    image[5:8, 10:13] = 200
    mask = image[:, :, 0] > 0
    shifted = Pose(np.array([[1.0, 0, 4], [0, 1, 2]]), 1.0, True)  # the part lies 4 to the right and 2 further down
    np.testing.assert_array_equal(warped(image, shifted, (20, 30))[3:6, 6:9], 200)
    assert warped(mask, shifted, (20, 30)).sum() == 9
    assert warped(mask, shifted, (20, 30)).dtype == bool
    map_ = warped(mask.astype(np.float32), shifted, (20, 30))
    np.testing.assert_array_equal(restored(map_, shifted, (20, 30)), mask)
    assert (restored(np.ones((20, 30), np.float32), shifted, (20, 30), outside=-1)[:2] == -1).all()


def test_which_pixels_of_the_reference_an_image_shows():
    shifted = Pose(np.array([[1.0, 0, 4], [0, 1, 0]]), 1.0, True)
    shown = covered(shifted, (4, 10), (4, 10))
    assert shown[:, :6].all()
    assert not shown[:, 6:].any()


def test_a_few_missing_pixels_count_and_a_margin_along_many_does_not():
    size = (100, 100)
    near = Pose(np.array([[1.0, 0, 2], [0, 1, 0]]), 1.0, True)
    assert counted(near, size, size).all()
    assert not covered(near, size, size).all()
    far = counted(Pose(np.array([[1.0, 0, 20], [0, 1, 0]]), 1.0, True), size, size)
    assert far[:, :73].all()  # 79 columns are shown, and 6.25 pixels beside the others do not count
    assert not far[:, 73:].any()


def test_what_an_image_does_not_show_mirrors_it():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    shown = warped(image, Pose(np.array([[1.0, 0, 4], [0, 1, 0]]), 1.0, True), (20, 30))
    np.testing.assert_array_equal(shown[:, :26], image[:, 4:])
    np.testing.assert_array_equal(shown[:, 26:], image[:, :25:-1])


def test_a_reference_needs_images():
    with pytest.raises(BadData, match="at least one normal image"):
        Template.learn([])


def test_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(Missing, match=r"iadbe\[align\]"):
        Template.learn(washers(1))
