import numpy as np
import pytest

from iadbe import registry
from iadbe.drawing import Canvas, Defect, Relief, _closed_region, canvas_of, generator, paint, random_path, render

DRAWINGS = {name: registry.load("drawings", name)() for name in registry.names("drawings")}
SIZES = {name: 1024 if drawing.fine else 256 for name, drawing in DRAWINGS.items()}
KINDS = [(name, kind) for name, drawing in DRAWINGS.items() for kind in drawing.defects]


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_a_mask_is_where_the_image_differs_from_the_same_part_without_the_defect(name, kind, severity):
    good = render(DRAWINGS[name], f"one {kind}", size=SIZES[name])
    bad = render(DRAWINGS[name], f"one {kind}", kind, severity, SIZES[name])
    differs = (bad.image != good.image).any(axis=-1)
    assert (bad.depth is None) == (good.depth is None) == (not isinstance(DRAWINGS[name], Relief))
    if good.depth is not None:
        measured = np.isfinite(good.depth) & np.isfinite(bad.depth)
        differs |= measured & (bad.depth != good.depth)
    assert not good.mask.any()
    fine = DRAWINGS[name].fine
    assert (4 if fine else 16) <= bad.mask.sum() < (0.001 if fine else 0.1) * bad.mask.size
    assert not differs[~bad.mask].any()
    assert differs[bad.mask].mean() > 0.75


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_flaw_takes_no_number_from_the_part(name, kind):
    canvas, rngs = canvas_of(256), [generator("p"), generator("p")]
    assert DRAWINGS[name].relief == isinstance(DRAWINGS[name], Relief)
    light = DRAWINGS[name].draw(canvas, rngs[0], None)
    DRAWINGS[name].draw(canvas, rngs[1], Defect(kind, 0.5, generator("f")))
    assert rngs[0].bit_generator.state == rngs[1].bit_generator.state
    assert light.shape == (3, 512, 512)
    assert light.dtype == np.float32
    assert light.min() > -0.2
    assert light.max() < 1.5


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_good_parts_differ_but_not_from_themselves(name):
    a, b, again = (render(DRAWINGS[name], n).image for n in ("a", "b", "a"))
    assert a.shape == (256, 256, 3)
    assert a.dtype == np.uint8
    assert (a == again).all()
    assert np.abs(a.astype(int) - b).mean() > 5


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_a_larger_image_shows_the_same_part_more_finely(name):
    kind = DRAWINGS[name].defects[0]
    side = SIZES[name] // 2 if DRAWINGS[name].fine else SIZES[name]
    small, large = (render(DRAWINGS[name], "n", kind, 1.0, size) for size in (side, 2 * side))
    halves = large.image.reshape(side, 2, side, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    pixels = small.image.astype(float).transpose(2, 0, 1)
    other = render(DRAWINGS[name], "m", kind, size=side).image.astype(float).transpose(2, 0, 1)
    near, far = (np.corrcoef(p.ravel(), halves.ravel())[0, 1] for p in (pixels, other))
    assert near > 0.85
    assert near > far + 0.1
    both = large.mask[::2, ::2] & small.mask
    assert both.sum() > 0.6 * (large.mask[::2, ::2] | small.mask).sum()


def test_generators_belong_to_their_names():
    assert generator("a", "b").integers(2**62) == generator("a", "b").integers(2**62)
    assert len({int(generator(*n).integers(2**62)) for n in (("a",), ("b",), ("a", "b"), ("b", "a"))}) == 4


def test_coordinates_turn_about_their_origin():
    canvas = Canvas(256)
    u, v = canvas.frame(np.pi / 2, 100, 60)
    np.testing.assert_allclose(u, np.broadcast_to(canvas.y - 60, u.shape), atol=1e-4)
    np.testing.assert_allclose(v, np.broadcast_to(100 - canvas.x, v.shape), atol=1e-4)


def test_a_window_holds_what_is_near_and_stays_on_the_sheet():
    canvas = Canvas(256)
    u, v = canvas.frame(0, 250, 20)
    rows, columns = canvas.window(250, 20, 30)
    inside = np.zeros(u.shape, bool)
    inside[rows, columns] = True
    assert inside[u**2 + v**2 <= 30**2].all()
    assert canvas.window(-50, 500, 10) == (slice(980, 1020), slice(0, 0))


def test_clouds_are_smooth_hills_about_zero_whose_windows_agree():
    canvas = Canvas(256)
    hills = canvas.smooth_noise(generator(1), 20)
    assert abs(hills.mean()) < 0.1
    assert 0.3 < hills.std() < 0.8
    assert np.abs(np.diff(hills, axis=0)).max() < 0.2 * hills.std()
    there = canvas.window(100, 90, 17)
    np.testing.assert_array_equal(canvas.smooth_noise(generator(1), 20, there), hills[there])
    np.testing.assert_allclose(Canvas(512).smooth_noise(generator(1), 20)[::2, ::2], hills, atol=0.05)


def test_speckle_takes_as_many_numbers_on_any_sheet():
    left = []
    for size in (256, 300):
        rng = generator(2)
        Canvas(size).pixel_noise(rng)
        left.append(int(rng.integers(2**62)))
    assert left[0] == left[1]


def test_a_stroke_covers_its_length_times_its_width():
    canvas = Canvas(256)
    alpha = canvas.stroke(np.array([(50.0, 60.0), (110.0, 140.0)]), 3.0)
    assert alpha.sum() * canvas.unit**2 == pytest.approx(100 * 3 + np.pi * 1.5**2, rel=0.02)  # with round ends
    again = canvas.stroke(np.array([(50.0, 60.0), (110.0, 140.0)]), 3.0, alpha=alpha.copy())
    np.testing.assert_array_equal(again, alpha)


def test_a_blot_has_about_its_radius():
    canvas = Canvas(256)
    area = (canvas.spot_distance(generator(3), (120, 130), 20, 0.2) < 0).sum() * canvas.unit**2
    assert area == pytest.approx(np.pi * 20**2, rel=0.35)
    assert (
        canvas.spot_distance(generator(3), (120, 130), 20, 0.2)
        != canvas.spot_distance(generator(4), (120, 130), 20, 0.2)
    ).any()


def test_a_wandering_path_keeps_its_length_and_its_middle():
    path = random_path(generator(5), (70, 80), 1.0, 60, 0.3)
    assert np.hypot(*np.diff(path, axis=0).T).sum() == pytest.approx(60)
    np.testing.assert_allclose(path.mean(axis=0), (70, 80))


def test_paint_covers_by_its_ink():
    planes, alpha = np.full((3, 4, 4), 0.5, np.float32), np.zeros((4, 4), np.float32)
    paint(planes, (1, 0, 1), alpha)
    assert (planes == 0.5).all()
    alpha[1, 2], alpha[3, 3] = 1, 0.5
    paint(planes, (1, 0, 1), alpha)
    np.testing.assert_allclose(planes[:, 1, 2], (1, 0, 1))
    np.testing.assert_allclose(planes[:, 3, 3], (0.75, 0.25, 0.75))
    assert (planes[:, 0] == 0.5).all()


def test_a_mask_is_closed_filled_and_free_of_specks():
    seen = np.zeros((256, 256), bool)
    seen[40:60, 40:60] = True
    seen[45:55, 45:55] = False  # a hole
    seen[100:110, 0:3] = seen[100:110, 4:8] = True  # a gap, at the border
    seen[200, 200] = True  # a speck
    wanted = np.zeros_like(seen)
    wanted[40:60, 40:60] = wanted[100:110, 0:8] = True
    np.testing.assert_array_equal(_closed_region(seen, 1), wanted)
    assert not _closed_region(np.zeros_like(seen), 1).any()
