from pathlib import Path

import pytest
from PIL import TiffImagePlugin

from iadbe.errors import BadData
from iadbe.files import decoding, pages
from uploads import tiff_of


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


@pytest.fixture
def read(monkeypatch):
    """How many headers Pillow reads."""
    counted = []
    original = TiffImagePlugin.ImageFileDirectory_v2.load

    def load(self, file):
        counted.append(1)
        return original(self, file)

    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", load)
    return counted


def test_no_more_headers_are_read_than_are_needed(tmp_path, read):
    file = tmp_path / "a.tif"
    file.write_bytes(tiff_of([(3, 2)] * 500))
    assert [(s.width, s.height, s.bytes) for s in decoding.page_sizes(file, 2)] == [(3, 2, 6)] * 3
    assert len(read) < 10


def test_a_file_of_too_many_pages_is_refused(tmp_path, monkeypatch, read):
    monkeypatch.setattr(pages, "MOST", 20)
    few, many = tmp_path / "few.tif", tmp_path / "many.tif"
    few.write_bytes(tiff_of([(3, 2)] * 20))
    many.write_bytes(tiff_of([(3, 2)] * 500))
    assert decoding.count_images(few) == 20
    for path in (many, tmp_path / "many.tif#0003"):
        with pytest.raises(BadData, match="holds more than 20 images: too many"):
            decoding.decode(path)
    with pytest.raises(BadData, match="holds more than 20 images: too many"):
        decoding.count_images(many)
    assert len(read) < 200
