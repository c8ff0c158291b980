from pathlib import Path

from iadbe.cache import cache_folder


def test_the_cache_goes_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("IADBE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/iadbe")
