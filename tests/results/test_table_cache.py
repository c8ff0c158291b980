import json
import os
import time

import pytest

from fake_results import result, scores
from iadbe.results import table_cache
from iadbe.results.ranking import ranking, ranking_of
from iadbe.results.table_cache import FOLDER, TableCache, tables_of
from iadbe.running.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    for task in ("bottle", "cable"):
        for detector in ("padim", "dfm"):
            store.save(result(detector, task, scores=scores(task)))
    store.save(result("padim", "part", dataset="visa", scores=scores("part")))
    return store


def test_what_is_kept_is_read_back_whole(store):
    tables = ranking([*list(store), result("dfkde", error="broken: 1 µm")], reported=("papers",))
    cache = TableCache(store.root)
    key = cache.key({"metric": ""})
    assert cache.get(key) is None
    cache.put(key, tables, ["one is damaged"])
    assert cache.get(key) == (tables, ["one is damaged"])


def test_a_key_follows_runs_requests_and_code(store, monkeypatch):
    first = TableCache(store.root).key("asked")
    assert TableCache(store.root).key("asked") == first
    assert TableCache(store.root).key("else") != first
    one = next(iter(store.folders())).name
    alone = TableCache(store.root).key("asked", folders=[one])
    store.save(result("stfpm", "bottle"))
    assert TableCache(store.root).key("asked") != first
    assert TableCache(store.root).key("asked", folders=[one]) == alone
    file = store.root / one / "result.json"
    os.utime(file, ns=(1, 1))
    assert TableCache(store.root).key("asked", folders=[one]) != alone
    monkeypatch.setattr(table_cache, "_package", lambda: "other code")
    assert TableCache(store.root).key("else") != TableCache(store.root).key("asked") != first


def test_only_a_comparison_whose_runs_changed_is_made_again(store):
    made = []

    def make(comparison):
        made.append(comparison.title.partition(",")[0])
        return ranking_of(comparison)

    def ask():
        made.clear()
        return tables_of(store, list(store), make, "ranking", scores=True).tables

    first = ask()
    assert made == ["mvtec_ad", "visa"]
    assert first == ranking(list(store))
    assert ask() == first
    assert made == []
    store.save(result("dfm", "part", dataset="visa", scores=scores("part")))
    assert ask() == ranking(list(store))
    assert made == ["visa"]


def test_damaged_entries_are_made_again(store):
    cache = TableCache(store.root)
    key = cache.key("x")
    cache.put(key, ranking(list(store)))
    file = store.root / FOLDER / f"{key}.json"
    for text in ("", "[]", "{}", json.dumps({"tables": [{"title": 1}], "damaged": []})):
        file.write_text(text)
        assert cache.get(key) is None


def test_the_least_recently_used_go_first(store, monkeypatch):
    monkeypatch.setattr(table_cache, "MAX_FILES", 2)
    cache = TableCache(store.root)
    for name in ("a", "b"):
        cache.put(name, [])
    past = time.time() - 100
    for age, name in enumerate(("a", "b")):
        os.utime(store.root / FOLDER / f"{name}.json", (past + age, past + age))
    assert cache.get("a") is not None  # now it was used last
    cache.put("c", [])
    assert [cache.get(name) is not None for name in "abc"] == [True, False, True]


def test_a_store_that_cannot_be_written_to_is_not_cached(store, monkeypatch):
    def refused(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(table_cache.Path, "mkdir", refused)
    cache = TableCache(store.root)
    cache.put("a", ranking(list(store)))
    assert cache.get("a") is None


def test_the_folder_of_the_cache_is_no_run(store):
    before = [f.name for f in store.folders()]
    TableCache(store.root).put("a", [])
    assert [f.name for f in store.folders()] == before
    assert sorted(TableCache(store.root).stamps) == sorted(before)
