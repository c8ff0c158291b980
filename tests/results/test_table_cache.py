import json
import os
import shutil
import time
from functools import partial

import pytest

from fake_results import result, scores, spec
from iadbe.results import builder, run_cases, table_cache
from iadbe.results.comparison import compare
from iadbe.results.index import read_entry
from iadbe.results.ranking import by_category_of, ranking, ranking_of
from iadbe.results.table_cache import FOLDER, TableCache, tables_of
from iadbe.running.store import Store, folder_name


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


@pytest.fixture
def counted(monkeypatch):
    """The folders whose scores are read, and the detectors whose intervals are computed."""
    read, computed = [], []
    of_folder, of_cases = run_cases.read_cases, builder.metric_interval
    monkeypatch.setattr(run_cases, "read_cases", lambda store, folder: read.append(folder) or of_folder(store, folder))
    monkeypatch.setattr(
        builder, "metric_interval", lambda cases, metric: computed.append(metric) or of_cases(cases, metric)
    )
    return read, computed


@pytest.mark.parametrize("by", ["metric", "category"])
def test_only_a_detector_whose_runs_changed_is_read_and_resampled_again(store, counted, by):
    read, computed = counted
    make = ranking_of if by == "metric" else partial(by_category_of, metric="image_auroc")

    def ask():
        read.clear()
        computed.clear()
        tables = tables_of(store, list(store), make, by, scores=True).tables
        assert tables == [make(c) for c in compare(list(store))]
        return [folder.partition("-")[0] for folder in read]

    assert sorted(ask()) == ["dfm", "dfm", "padim", "padim", "padim"]
    assert ask() == []
    store.save(result("dfm", "bottle", scores=scores("bottle", seed=5)))  # the run again, with other scores
    assert ask() == ["dfm", "dfm"]
    store.save(result("dfm", "pill", scores=scores("pill")))
    assert ask() == ["dfm", "dfm", "dfm"]
    store.save(result("spade", "bottle", scores=scores("bottle", shift=1.0)))
    assert ask() == ["spade"]
    shutil.rmtree(store.path(spec("dfm", "pill")))
    assert ask() == ["dfm", "dfm"]
    shutil.rmtree(store.path(spec("padim", "part", dataset="visa")))
    assert ask() == []


def test_kept_intervals_follow_the_code(store, counted, monkeypatch):
    read, _ = counted
    tables_of(store, list(store), ranking_of, "a", scores=True)
    read.clear()
    tables_of(store, list(store), ranking_of, "b", scores=True)  # another table of the same intervals
    assert read == []
    monkeypatch.setattr(table_cache, "_package", lambda: "other code")
    tables_of(store, list(store), ranking_of, "b", scores=True)
    assert len(read) == 5


def test_damaged_intervals_are_computed_again(store, counted):
    read, _ = counted
    expected = tables_of(store, list(store), ranking_of, "a", scores=True)
    for text in ("", "[]", '{"intervals": 5}', '{"intervals": {}}', '{"intervals": []}'):
        for file in (store.root / FOLDER).iterdir():
            if '"intervals"' in (kept := file.read_text()) or kept in ("", "[]"):
                file.write_text(text)
        read.clear()
        assert tables_of(store, list(store), ranking_of, f"b{text}", scores=True) == expected
        assert len(read) == 5


def test_a_run_whose_scores_cannot_be_read_is_left_out_with_a_sentence(store):
    (store.path(spec("dfm", "cable")) / "scores.csv").write_text("step,test\n0,cable\n")
    runs = [read_entry(store, f.name, "")[0] for f in store.folders()]
    found = tables_of(store, runs, ranking_of, "a", scores=True)
    (sentence,) = found.damaged
    assert "dfm-mvtec_ad-cable" in sentence
    well = [store.load(folder_name(r.spec)) for r in runs if (r.spec.detector, r.spec.task) != ("dfm", "cable")]
    assert found.tables == ranking(well)


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
