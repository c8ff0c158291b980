import numpy as np
import pytest

from iadbe.drawing import render
from iadbe.drawings.washer import BORE, RING, TEETH, TIP, Washer


def metal(image):
    """Return where the metal is: it is warmer than the bluish mat, also in the shade."""
    return image[..., 0].astype(int) - image[..., 2] > -8


def teeth(image):
    """Count the teeth on a circle about the middle of the bore."""
    rows, columns = np.nonzero(metal(image))
    y, x = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = (RING + TIP) / 2
    hit = metal(image)[np.rint(y + radius * np.sin(turn)).astype(int), np.rint(x + radius * np.cos(turn)).astype(int)]
    return int((hit & ~np.roll(hit, 1)).sum())


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_good_washer_has_twelve_teeth(name):
    assert teeth(render(Washer(), name).image) == TEETH


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_washer_that_lost_a_tooth_has_eleven(name):
    assert teeth(render(Washer(), name, "missing", 1.0).image) == TEETH - 1


def test_washers_lie_and_turn_differently():
    places = []
    for k in range(4):
        rows, columns = np.nonzero(metal(render(Washer(), f"washer {k}").image))
        places.append((rows.mean(), columns.mean()))
        assert np.pi * (RING**2 - BORE**2) < len(rows) < np.pi * (TIP**2 - BORE**2)
    assert np.ptp(places, axis=0).max() > 5


@pytest.mark.parametrize("kind", ["crack", "stain"])
def test_what_lies_on_the_metal_stays_on_it(kind):
    good, (_, mask, _) = render(Washer(), "a"), render(Washer(), "a", kind, 1.0)
    on = metal(good.image)
    grown = on | np.roll(on, 1, 0) | np.roll(on, -1, 0) | np.roll(on, 1, 1) | np.roll(on, -1, 1)
    assert (mask & grown).sum() > 0.97 * mask.sum()


def test_a_bent_tooth_leaves_the_others_alone():
    mask = render(Washer(), "a", "bent", 1.0).mask
    rows, columns = np.nonzero(mask)
    assert np.ptp(rows) < 60
    assert np.ptp(columns) < 60
