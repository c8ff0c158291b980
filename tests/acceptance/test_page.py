"""The report as HTML and as PDF."""

import re
import shutil

import pytest

import iadbe
from iadbe.acceptance import page
from iadbe.errors import Missing


@pytest.fixture(scope="module")
def found(factory):
    root = factory.root
    how = {"repeats": root / "again", "part": r"part_\d", "drawn": 2, "overkill": 0.5}
    return iadbe.accept(factory.model, root / "good", root / "bad", **how)


def test_the_page_stands_alone(found, tmp_path):
    text = page.write(found, tmp_path / "new/report.html").read_text(encoding="utf-8")
    assert "<title>Acceptance of Golden</title>" in text
    assert "12 good and 6 defective images" in text
    assert "spot</td><td>6</td>" in text
    assert text.count("<circle") == 20
    assert len(re.findall(r'<img src="data:', text)) == 8
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "signature" in text


def test_names_are_text(found):
    kind = found.challenge.kinds[0]
    object.__setattr__(kind, "name", "<script>alert(1)</script>")
    try:
        assert "<script>" not in page.html(found)
    finally:
        object.__setattr__(kind, "name", "spot")


@pytest.mark.skipif(not any(map(shutil.which, page.BROWSERS)), reason="needs Chromium")
def test_a_pdf(found, tmp_path):
    file = page.write(found, tmp_path / "report.pdf")
    assert file.read_bytes().startswith(b"%PDF")
    assert file.stat().st_size > 10_000


def test_a_browser_that_does_not_start_is_one_sentence(found, tmp_path, monkeypatch):
    monkeypatch.setattr(page.shutil, "which", lambda name: str(tmp_path / "no browser"))
    with pytest.raises(Missing, match="cannot be started|does not start"):
        page.write(found, tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()
