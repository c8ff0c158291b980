"""docs/synthetic_defects.md: it shows every image that its script draws, as the script draws it now."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
if not DOCS.is_dir():
    pytest.skip("there is no docs folder here", allow_module_level=True)
sys.path.insert(0, str(DOCS))
import synthetic_defects  # noqa: E402

TEXT = (DOCS / "synthetic_defects.md").read_text(encoding="utf-8")
FILES = sorted((DOCS / "synthetic").glob("*.png"))


def test_the_page_shows_every_image_once():
    shown = re.findall(r"!\[[^\]]+\]\(synthetic/(\w+)\.png\)", TEXT)
    drawn = [make.__name__ for make in synthetic_defects.GALLERY]
    assert sorted(shown) == sorted(drawn) == [file.stem for file in FILES]


def test_the_images_are_small():
    assert all(file.stat().st_size < 150_000 for file in FILES)


@pytest.mark.parametrize("name", ["cutpaste", "nsa", "on_object"])
def test_an_image_drawn_again_is_the_same(name):
    """Within rounding, which may differ between machines, and the palette's steps."""
    make = next(make for make in synthetic_defects.GALLERY if make.__name__ == name)
    found = np.asarray(synthetic_defects.drawn(make), np.int16)
    stored = np.asarray(Image.open(DOCS / "synthetic" / f"{name}.png").convert("RGB"), np.int16)
    assert found.shape == stored.shape
    assert np.mean(np.abs(found - stored)) < 6
    other = np.asarray(synthetic_defects.drawn(make, seed=synthetic_defects.SEED + 1), np.int16)
    assert np.mean(np.abs(other - stored)) > 2 * np.mean(np.abs(found - stored))


def test_the_building_blocks_that_it_names_exist():
    for package, others in re.findall(r"`iadbe\.layers\.synthetic\.(\w+)`((?:, `\.\w+`)*)", TEXT):
        for name in (package, *re.findall(r"`\.(\w+)`", others)):
            assert (DOCS.parent / f"src/iadbe/layers/synthetic/{name}.py").is_file(), name
    used = set(re.findall(r"`([a-z]+)`", TEXT))
    detectors = {file.stem for file in (DOCS.parent / "src/iadbe/detectors").glob("*.py")}
    assert used <= detectors | {"textures"}
