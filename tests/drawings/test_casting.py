import numpy as np

from iadbe.drawing import UNITS, WIDTH, Defect, canvas_of, generator, render
from iadbe.drawings.casting import Casting

UNIT = WIDTH / UNITS  # metres


def difference(kind, severity, name="cover"):
    """Return how much farther away a defect makes the surface, in units, nan where it is not measured."""
    good, bad = render(Casting(), name), render(Casting(), name, kind, severity)
    return (bad.depth - good.depth) / UNIT, bad.mask


def test_the_disc_rises_from_the_belt_with_a_bore_through_it():
    depth = render(Casting(), "cover").depth
    belt = np.nanmedian(depth[:20])
    heights = (belt - depth) / UNIT
    assert 25 < np.nanmax(heights) < 32  # boss and studs
    assert abs(np.nanmedian(heights[:, :20])) < 3  # the belt is tilted a little
    assert 13 < np.nanpercentile(heights, 80) < 19  # the plate


def test_bumps_rise_and_dents_sink_the_more_the_more_severe():
    for kind, sign in (("bump", -1), ("dent", 1)):
        faint, plain = (sign * np.nanmax(sign * difference(kind, severity)[0]) for severity in (0.0, 1.0))
        assert 2 < sign * faint < 4
        assert 6 < sign * plain < 9


def test_a_missing_stud_leaves_the_plate():
    change, mask = difference("missing", 1.0)
    assert 9 < np.nanmax(change) < 12
    assert np.nanmax(np.abs(change[~mask])) < 1e-3


def test_a_stain_has_colour_and_no_depth():
    good, bad = render(Casting(), "cover"), render(Casting(), "cover", "stain", 1.0)
    np.testing.assert_array_equal(good.depth, bad.depth)
    assert (bad.image.astype(int) - good.image)[bad.mask].mean() < -20


def test_a_deformation_hardly_shows_in_the_image():
    good, bad = render(Casting(), "cover"), render(Casting(), "cover", "bump", 0.5)
    shown = np.abs(bad.image.astype(int) - good.image).max(2)[bad.mask].mean()
    assert shown < 12


def test_height_and_image_are_of_the_same_part():
    """``draw`` takes its first random numbers as ``height`` does."""
    canvas = canvas_of(256)
    height = Casting().height(canvas, generator("p"), None)
    light = Casting().draw(canvas, generator("p"), None).mean(0)
    assert height.dtype == np.float32
    assert light[height > 8].mean() > 2 * light[height < 1].mean()
    defect = Defect("missing", 1.0, generator("f"))
    flaw = Casting().height(canvas, generator("p"), defect)
    assert 0 < (flaw != height).mean() < 0.02
