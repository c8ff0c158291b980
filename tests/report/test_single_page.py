"""Pages of one template."""

import pytest

from iadbe.errors import Missing
from iadbe.report import single_page


def test_text_is_escaped_and_the_style_is_at_hand(tmp_path):
    (tmp_path / "a.jinja").write_text('<style>{% include "report.css" %}</style><p>{{ text }}</p>', encoding="utf-8")
    page = single_page.rendered(tmp_path / "a.jinja", "the page", text="<script>")
    assert "<p>&lt;script&gt;</p>" in page
    assert "color-scheme" in page


def test_without_jinja2_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(single_page, "find_spec", lambda name: None)
    with pytest.raises(Missing, match="the page is made by jinja2"):
        single_page.rendered(tmp_path / "a.jinja", "the page")
