import numpy as np

from iadbe.drawing import render
from iadbe.drawings.metal import Metal


def test_the_grain_runs_from_left_to_right():
    grey = render(Metal(), "sheet").image.mean(axis=-1)
    down, right = np.abs(np.diff(grey, axis=0)).mean(), np.abs(np.diff(grey, axis=1)).mean()
    assert down > 1.5 * right


def test_one_band_of_light_lies_across_the_grain():
    rows = [render(Metal(), f"sheet {k}").image.mean(axis=(0, 2)) for k in range(3)]
    for columns in rows:
        smooth = np.convolve(columns, np.ones(25) / 25, mode="valid")
        assert smooth.max() - smooth.min() > 15
        top = smooth.argmax()
        assert (np.diff(smooth[:top:20]) > -2).all()
        assert (np.diff(smooth[top::20]) < 2).all()


def test_a_scratch_crosses_the_grain_in_a_thin_line():
    mask = render(Metal(), "sheet", "scratch", 1.0).mask
    points = np.argwhere(mask).astype(float)
    spread, axes = np.linalg.eigh(np.cov(points.T))
    assert spread[1] > 30 * spread[0]
    assert abs(axes[0, 1]) > np.sin(0.2)  # its length goes up and down too


def test_a_dent_has_a_bright_and_a_dark_flank():
    good = render(Metal(), "sheet").image.astype(int)
    bad, mask, _ = render(Metal(), "sheet", "dent", 1.0)
    change = (bad - good).mean(axis=-1)
    assert change[mask].max() > 15
    assert change[mask].min() < -15


def test_a_crack_is_dark_and_grows_with_its_force():
    good = render(Metal(), "sheet").image.astype(int)
    faint, plain = (render(Metal(), "sheet", "crack", severity) for severity in (0.0, 1.0))
    assert plain.mask.sum() > 3 * faint.mask.sum()
    assert (plain.image - good)[plain.mask].mean() < -20
