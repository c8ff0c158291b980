import pytest

from iadbe.errors import BadData
from iadbe.web.policy import Policy
from iadbe.web.sniff import check
from uploads import bomb, image


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("PNG", ".png"),
        ("JPEG", ".jpg"),
        ("BMP", ".bmp"),
        ("TIFF", ".tif"),
        ("WEBP", ".webp"),
        ("GIF", ".gif"),
        ("PPM", ".pnm"),
    ],
)
def test_formats_are_detected_by_content(form, suffix, tmp_path):
    assert check(image(form), Policy()) == (suffix, 64)
    (tmp_path / "misnamed.txt").write_bytes(image(form))
    assert check(tmp_path / "misnamed.txt", Policy()).suffix == suffix


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"GIF89a" + b"\0" * 50,
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_other_content_is_refused(data):
    with pytest.raises(BadData, match=r"x\.png is not an image"):
        check(data, Policy(), "x.png")


def test_a_decompression_bomb_is_not_decoded():
    with pytest.raises(BadData, match="too many pixels"):
        check(bomb(60_000, 60_000), Policy(), "x.png")
    with pytest.raises(BadData, match="20000x20000 pixels"):
        check(bomb(20_000, 20_000), Policy(), "x.png")
    with pytest.raises(BadData, match="9x12 pixels"):
        check(image(size=(12, 9)), Policy(pixels=100))
    assert check(image(size=(10, 10)), Policy(pixels=100)) == (".png", 100)


def test_a_file_that_is_too_large_is_refused():
    with pytest.raises(BadData, match="1 KB are allowed"):
        check(image("BMP", (100, 100)), Policy(image=1000))
