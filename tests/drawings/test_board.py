import numpy as np
import pytest
from scipy import ndimage

from iadbe.drawing import render
from iadbe.drawings.board import FROM_SMALL, PARTS, PRINTS, ROWS, VIEW, Board, lettering


def test_every_board_is_the_same_product():
    a, b = (render(Board(), name).image.astype(float).mean(axis=-1) for name in "ab")
    a, b = (ndimage.gaussian_filter(p, 6) for p in (a, b))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_a_missing_part_is_missed_where_it_belongs(severity):
    mask = render(Board(), "m", "missing", severity).mask
    y, x = np.argwhere(mask).mean(axis=0)
    near = min(PARTS, key=lambda part: abs((part.x - 128) / VIEW + 128 - x) + abs((part.y - 128) / VIEW + 128 - y))
    assert near.name in FROM_SMALL
    assert np.hypot((near.x - 128) / VIEW + 128 - x, (near.y - 128) / VIEW + 128 - y) < 16  # the board may lie askew
    area = 4 * near.half_length * near.half_width / VIEW**2
    assert 0.8 * area < mask.sum() < 3 * area  # with its shadow, and legs if it has any


def test_a_part_further_askew_changes_more():
    good = render(Board(), "b").image.astype(int)
    faint, plain = (np.abs(render(Board(), "b", "bent", severity).image - good).sum() for severity in (0.0, 1.0))
    assert plain > 1.5 * faint


@pytest.mark.parametrize("name", ["p", "q", "r", "s"])
def test_a_misprint_lies_on_one_label(name):
    rows, columns = np.nonzero(render(Board(), name, "misprint", 1.0).mask)
    text, _, _, dot = min(PRINTS[:3], key=lambda p: abs((p[2] - 128) / VIEW + 128 - rows.mean()))
    assert np.ptp(columns) < (6.4 * dot * len(text) + 12) / VIEW
    assert np.ptp(rows) < (8.4 * dot + 12) / VIEW


def test_lettering_is_read_from_left_to_right_and_top_to_bottom():
    v, u = np.mgrid[-4:5, -6.5:7.5].astype(np.float32)  # one dot more on every side
    lines = ["".join(".#"[int(dot)] for dot in row) for row in lettering("7T", u, v, 1.0)]
    assert lines == [
        "..............",
        ".#####.#####..",
        ".....#...#....",
        "....#....#....",
        "...#.....#....",
        "..#......#....",
        "..#......#....",
        "..#......#....",
        "..............",
    ]


def test_every_label_can_be_written():
    written = "".join(text for text, *_ in PRINTS) + "".join(part.mark for part in PARTS) + "0123456789"
    assert set(written) <= set(ROWS)
    assert all(len(rows) == 7 for rows in ROWS.values())
    assert len(set(ROWS.values())) == len(ROWS)
