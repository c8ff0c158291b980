import numpy as np
import pytest
from scipy import ndimage

from iadbe.drawing import render
from iadbe.drawings.panel import PADS, Panel

SIZE = 1024


def pads(image):
    """Return how many bright discs the image has: solder is grey, and the ground green."""
    solder = image[..., 0].astype(int) > 120
    _, count = ndimage.label(ndimage.binary_opening(solder, np.ones((9, 9))))
    return count


@pytest.fixture(scope="module")
def good():
    return render(Panel(), "p", size=SIZE).image.astype(int)


def test_a_panel_has_pads_in_rows(good):
    assert pads(good) == PADS**2


@pytest.mark.parametrize(("kind", "brighter"), [("bridge", True), ("pinhole", False)])
def test_a_defect_is_small_and_lies_where_it_should(good, kind, brighter):
    bad, mask, _ = render(Panel(), "p", kind, 1.0, SIZE)
    assert 1e-5 < mask.mean() < 1e-3
    change = (bad.astype(int) - good)[mask].mean()
    assert (change > 20) if brighter else (change < -40)
    assert np.ptp(np.nonzero(mask)[1]) < 1.2 * SIZE / PADS
