import shutil
import threading

import pytest

import fake_results
from iadbe.errors import UnknownName
from iadbe.results.index import RunQuery
from iadbe.running.store import Store
from iadbe.web import library
from iadbe.web.library import Library, stamps


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    for detector in ("padim", "dfm"):
        for task in ("bottle", "cable"):
            store.save(fake_results.result(detector, task, scores=fake_results.scores(task)))
    store.save(fake_results.result("padim", "candle", dataset="visa"))
    return store


@pytest.fixture
def books(store, monkeypatch):
    monkeypatch.setattr(library, "FRESH", 0.0)
    books = Library(store)
    yield books
    books.close()


def test_it_follows_the_folders(books, store):
    before = books.now()
    assert len(before.runs) == 5
    assert books.now() is before
    store.save(fake_results.result("dfm", "pill"))
    shutil.rmtree(store.path(fake_results.spec("padim", "bottle")))
    store.save(fake_results.result("padim", "cable", {"image_auroc": 0.25}))
    after = books.now()
    assert {s.result.spec.task for s in after.runs.values()} == {"bottle", "cable", "pill", "candle"}
    assert len(after.runs) == 5
    assert (
        books.run(next(i for i, f in after.ids.items() if f.startswith("padim-mvtec_ad-cable"))).result.rows[0].value
        == 0.25
    )
    assert after.versions["visa"] == before.versions["visa"]
    assert after.versions["mvtec_ad"] != before.versions["mvtec_ad"]


def test_many_changes_go_through_the_index_and_give_the_same(store, monkeypatch):
    slow = Library(store)
    monkeypatch.setattr(library, "FEW", 1)
    quick = Library(store)
    for folder, shelved in slow.now().runs.items():
        other = quick.now().runs[folder]
        assert shelved.stamp == other.stamp
        assert fake_results.plain([shelved.result]) == fake_results.plain([other.result])
    slow.close()
    quick.close()


@pytest.mark.parametrize("few", [1, 500])
def test_a_damaged_folder_is_named_and_hides_no_other(books, store, monkeypatch, few):
    monkeypatch.setattr(library, "FEW", few)
    folders = list(store.folders())
    for folder in folders[:2]:
        (folder / "result.json").write_text("{")
    now = books.now()
    assert len(now.runs) == 3
    assert set(now.damaged) == {f.name for f in folders[:2]}
    assert str(store.root) not in next(iter(now.damaged.values()))
    shutil.rmtree(folders[0])
    assert set(books.now().damaged) == {folders[1].name}


@pytest.mark.parametrize("name", ["..", "../runs", ".logs", "", "/etc", "padim", "x" * 300])
def test_only_names_that_are_there_become_paths(books, name):
    with pytest.raises(UnknownName):
        books.path(name)


def test_comparisons_are_kept_until_a_run_changes(books, store):
    visa, mvtec = RunQuery(("visa",)), RunQuery(("mvtec_ad",))
    kept = books.comparisons(visa)
    (before,) = books.comparisons(mvtec)
    store.save(fake_results.result("dfm", "pill"))
    assert books.comparisons(visa)[0] is kept[0]
    (after,) = books.comparisons(mvtec)
    assert len(before.categories("image_auroc")) == 2
    assert len(after.categories("image_auroc")) == 3
    (scored,) = books.comparisons(mvtec, scores=True)
    assert scored.entries[0].cases
    assert not after.entries[0].cases


def test_a_test_within_a_task_can_be_chosen(books, store):
    from iadbe.types import Row

    rows = tuple(Row(0, c, "image_auroc", 0.5) for c in ("nut", "tile"))
    store.save(fake_results.result("padim", "nut+tile", rows=rows))
    (found,) = books.comparisons(RunQuery(("mvtec_ad",), ("tile",)))
    assert found.categories("image_auroc") == ("tile",)


def test_unknown_names_help(books):
    with pytest.raises(UnknownName, match="Did you mean padim"):
        books.select(RunQuery(detector=("padin",)))
    with pytest.raises(UnknownName, match="seed 7"):
        books.select(RunQuery(seed=(7,)))


def test_many_readers_while_it_changes(books, store):
    wrong = []

    def read():
        for _ in range(20):
            try:
                assert len(books.now().runs) >= 5
                books.comparisons(RunQuery())
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(10):
        store.save(fake_results.result("dfm", f"more{n}"))
    for reader in readers:
        reader.join()
    assert not wrong
    assert len(books.now().runs) == 15


def test_stamps_skip_what_is_no_run(store):
    (store.root / ".part").mkdir(exist_ok=True)
    (store.root / "empty").mkdir()
    (store.root / "file").write_text("")
    assert len(stamps(store.root)) == 5
    assert stamps(store.root / "none") == {}


def test_runs_are_counted_by_what_they_have(books, store):
    now = books.now()
    assert now.counts("dataset") == {"mvtec_ad": 4, "visa": 1}
    assert now.counts("detector") == {"padim": 3, "dfm": 2}
    assert now.counts("category")["bottle"] == 2
    assert {s.result.spec.task for s in now.about("visa")} == {"candle"}
    assert now.about("none") == []
    store.save(fake_results.result("dfm", "candle", dataset="visa"))
    assert books.now().counts("dataset")["visa"] == len(books.now().about("visa")) == 2
