import gc
import os
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest

import fake_results
from iadbe.results import stored_runs as module
from iadbe.results.index import FILE, RunIndex, RunQuery
from iadbe.results.stored_runs import collector_paused, stored_runs
from iadbe.results.table_cache import folder_stamps
from iadbe.running.store import Store
from iadbe.types import Row


@pytest.fixture
def store(tmp_path):
    """Runs of all kinds, and their index."""
    store = Store(tmp_path / "runs")
    for detector in ("padim", "dfm"):
        for seed in (0, 1):
            store.save(
                fake_results.result(detector, "bottle", {"image_auroc": 0.9, "pixel_ap": fake_results.NAN}, seed=seed)
            )
    rows = tuple(Row(step, test, "image_auroc", 0.1 * step) for step in range(12) for test in ("nut", "tile"))
    store.save(fake_results.result("padim", "nut+tile", rows=rows, notes=("slow",), detector_params={"dims": 16}))
    store.save(fake_results.result("dfm", "candle", dataset="visa", error="no memory left"))
    with RunIndex(store) as index:
        index.sync()
    return store


def found(store):
    return stored_runs(store, folder_stamps(store.root))


def by_index(store, query=RunQuery()):  # noqa: B008
    with RunIndex(store) as index:
        return fake_results.plain(index.results(query))


def test_runs_are_those_of_the_index(store):
    assert fake_results.plain(found(store).by_folder.values()) == by_index(store)
    assert list(found(store).by_folder) == [f.name for f in store.folders()]
    assert found(store).damaged == ()


def test_changed_new_and_removed_runs_are_seen_without_writing_to_the_index(store):
    before = (store.root / FILE).read_bytes()
    store.save(fake_results.result("padim", "bottle", {"image_auroc": 0.25}))
    store.save(fake_results.result("spade", "pill"))
    shutil.rmtree(store.path(fake_results.spec("dfm", "bottle", seed=1)))
    runs = found(store)
    assert (store.root / FILE).read_bytes() == before
    assert {r.rows[0].value for r in runs.by_folder.values() if r.spec.detector == "padim" and r.spec.seed == 0} >= {
        0.25
    }
    assert fake_results.plain(runs.by_folder.values()) == by_index(store)


@pytest.mark.parametrize(
    "query",
    [
        RunQuery(), RunQuery(("visa",)), RunQuery(detector=("padim",), seed=(1,)), RunQuery(category=("tile",)),
        RunQuery(category=("bottle", "nut")), RunQuery(("mvtec_ad",), ("candle",)),
    ],
)  # fmt: skip
def test_a_query_gives_what_the_index_gives(store, query):
    assert fake_results.plain(found(store).matching(query).values()) == by_index(store, query)


@pytest.mark.parametrize("query", [RunQuery(("visas",)), RunQuery(seed=(7,)), RunQuery(category=("tile", "til"))])
def test_a_name_that_no_run_has_is_left_to_the_index_which_says_so(store, query):
    assert found(store).matching(query) is None


def test_a_damaged_run_has_the_sentence_of_the_index(store):
    folder = next(store.folders())
    (folder / "result.json").write_text("{")
    with RunIndex(store) as index:
        expected = index.sync().damaged
    assert found(store).damaged == expected
    assert folder.name not in found(store).by_folder


def test_many_changes_are_left_to_the_index(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_CHANGED", 1)
    store.save(fake_results.result("spade", "pill"))
    assert found(store) is not None
    store.save(fake_results.result("spade", "zipper"))
    assert found(store) is None


def test_an_index_that_cannot_be_read_is_left_to_be_repaired(store):
    with closing(sqlite3.connect(store.root / FILE)) as connection:
        connection.execute("UPDATE about SET schema = 99")
        connection.commit()
    assert found(store) is None
    (store.root / FILE).write_bytes(b"no database")
    for end in ("-wal", "-shm"):
        (store.root / f"{FILE}{end}").unlink(missing_ok=True)
    assert found(store) is None
    os.unlink(store.root / FILE)
    assert found(store) is None
    assert not (store.root / FILE).exists()


def test_the_collector_is_as_it_was():
    for before in (gc.enable, gc.disable):
        before()
        was = gc.isenabled()
        with suppress(KeyError), collector_paused():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was
    gc.enable()
