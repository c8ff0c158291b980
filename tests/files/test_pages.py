from pathlib import Path

import pytest

from iadbe.files import pages


def test_a_page_has_a_path_of_its_own():
    assert pages.name("a/stack.tif", 3) == "a/stack.tif#0003"
    assert pages.split(Path("a/stack.tif#0003")) == (Path("a/stack.tif"), 3)
    assert pages.split(Path("a/stack.TIFF#12345")) == (Path("a/stack.TIFF"), 12345)


@pytest.mark.parametrize("path", ["a/stack.tif", "a/film.mp4#0003", "a/part#3.png", "a/b.tif#x", "a.tif#1/b.png"])
def test_other_paths_are_files(path):
    assert pages.split(Path(path)) == (Path(path), None)
    assert pages.file_of(Path(path)) == Path(path)


def test_only_tiffs_may_have_pages():
    assert pages.may_have_pages(Path("a.TIF"))
    assert not pages.may_have_pages(Path("a.png"))
