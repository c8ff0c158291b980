import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from iadbe.errors import BadConfig, BadData
from iadbe.files.region_files import RegionFiles
from iadbe.web.drawn_regions import MAX_SHAPES, Drawing, DrawnRegions, DrawnShape, Outdated

IMAGES = {"can/0.png": "can", "lid/0.png": "lid"}


def shape(kind, *points, form="rectangle"):
    return {"kind": kind, "form": form, "points": points}


def drawing(*shapes, size=(20, 10)):
    return Drawing.model_validate({"size": size, "shapes": shapes})


INNER = shape("roi", (2, 1), (11, 8))
CORNER = shape("ignore", (0, 0), (5, 0), (0, 5), form="polygon")


@pytest.fixture
def drawn(tmp_path):
    return DrawnRegions(tmp_path)


def test_what_is_drawn_is_what_runs_read(drawn, tmp_path):
    made = drawing(INNER, CORNER)
    drawn.save("cans", "can", made, "")
    files = RegionFiles(tmp_path, IMAGES, **drawn.files("cans", ["can", "lid"]))
    counts = files.of("can/0.png", (10, 20))
    assert np.array_equal(counts, made.pixels())
    assert counts[8, 11]
    assert not counts[1, 2]  # ignored
    assert not counts[9, 12]
    assert np.array_equal(files.of("can/0.png", (20, 40)), counts.repeat(2, 0).repeat(2, 1))
    assert files.of("lid/0.png", (10, 20)) is None
    assert drawn.of("cans")["can"].counted == pytest.approx(counts.mean(), abs=1e-4)


def test_a_request_chooses_what_is_used(drawn):
    drawn.save("cans", "can", drawing(INNER, CORNER), "")
    found = {choice: set(drawn.files("cans", ["can"], choice)) for choice in ("drawn", "roi", "ignore", "none")}
    assert found == {"drawn": {"roi", "ignore"}, "roi": {"roi"}, "ignore": {"ignore"}, "none": set()}
    assert drawn.files("cans", ["other"]) == drawn.files("else", ["can"]) == {}
    with pytest.raises(BadConfig, match="region is one of drawn, roi, ignore, none, not '/etc/passwd'"):
        drawn.files("cans", ["can"], "/etc/passwd")


def test_a_file_that_a_job_may_wait_for_stays(drawn):
    drawn.save("cans", "can", drawing(INNER), "")
    first = drawn.files("cans", ["can"])["roi"]
    drawn.save("cans", "can", drawing(shape("roi", (0, 0), (5, 5))), drawn.revision("cans"))
    second = drawn.files("cans", ["can"])["roi"]
    assert first != second
    assert all("polygons" in Path(file).read_text(encoding="utf-8") for file in (first, second))
    drawn.save("cans", "can", drawing(), drawn.revision("cans"))
    assert drawn.of("cans") == drawn.files("cans", ["can"]) == {}
    assert drawn.revision("cans") == ""
    drawn.remove("cans")
    assert not list(drawn.root.iterdir())


def test_nobody_overwrites_the_drawing_of_another(drawn):
    drawn.save("cans", "can", drawing(INNER), "")
    before = drawn.of("cans")
    with pytest.raises(Outdated, match="changed in the meantime"):
        drawn.save("cans", "lid", drawing(CORNER), "")
    assert drawn.of("cans") == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (shape("roi", (0, 0), (float("nan"), 5)), "finite"),
        (shape("roi", (0, 0), (float("inf"), 5)), "finite"),
        (shape("roi", (0, 0), ("5", 5)), "valid number"),
        (shape("roi", (-1, 0), (5, 5)), "greater than or equal to 0"),
        (shape("roi", (0, 0), (21, 5)), "beyond the image"),
        (shape("roi", (0, 0), (0.5, 5)), "one pixel wide"),
        (shape("roi", (0, 0), (5, 5), (6, 6)), "two opposite corners"),
        (shape("roi", (0, 0), (5, 5), form="polygon"), "at least three corners"),
        (shape("both", (0, 0), (5, 5)), "'roi' or 'ignore'"),
        ({**INNER, "file": "/etc/passwd"}, "not permitted"),
        (shape("roi", *[(n % 7, n % 5) for n in range(2001)], form="polygon"), "at most 2000"),
    ],
)
def test_numbers_and_words_are_checked(given, said):
    with pytest.raises(ValidationError, match=said):
        drawing(given)


def test_so_are_sizes_and_amounts():
    for size in ((0, 10), (20, 2**17), (20.5, 10), (20,)):
        with pytest.raises(ValidationError):
            drawing(INNER, size=size)
    with pytest.raises(ValidationError, match="at most 100"):
        drawing(*[INNER] * (MAX_SHAPES + 1))
    many = shape("ignore", *[(n % 7, n % 5) for n in range(1500)], form="polygon")
    with pytest.raises(ValidationError, match="3000 corners are too many; 2000 are allowed"):
        drawing(many, many)


def test_something_must_count(drawn):
    with pytest.raises(BadConfig, match="no pixel would count"):
        drawn.save("cans", "can", drawing(INNER, shape("ignore", (0, 0), (20, 10))), "")
    assert drawn.of("cans") == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"can": 3}', json.dumps({"can": {"size": [1, 1], "shapes": []}})])
def test_a_damaged_file_is_reported(drawn, text):
    (drawn.root / "cans").mkdir(parents=True)
    (drawn.root / "cans/drawn.json").write_text(text)
    with pytest.raises(BadData, match="the regions drawn on cans are damaged"):
        drawn.of("cans")


def test_the_corners_of_a_rectangle_are_in_order():
    found = DrawnShape.model_validate(shape("roi", (4, 3), (1, 2))).corners
    assert found == [(4, 3), (1, 3), (1, 2), (4, 2)]
