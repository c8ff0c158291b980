import shutil
import threading

import pytest

import fake_results
from iadbe.errors import UnknownName
from iadbe.results.index import RunQuery
from iadbe.running.store import Store
from iadbe.web import run_cache
from iadbe.web.run_cache import RunCache, stamps


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    for detector in ("padim", "dfm"):
        for task in ("bottle", "cable"):
            store.save(fake_results.result(detector, task, scores=fake_results.scores(task)))
    store.save(fake_results.result("padim", "candle", dataset="visa"))
    return store


@pytest.fixture
def cache(store, monkeypatch):
    monkeypatch.setattr(run_cache, "MAX_AGE", 0.0)
    cache = RunCache(store)
    yield cache
    cache.close()


def test_changed_folders_are_read_again(cache, store):
    before = cache.now()
    assert len(before.runs) == 5
    assert cache.now() is before
    store.save(fake_results.result("dfm", "pill"))
    shutil.rmtree(store.path(fake_results.spec("padim", "bottle")))
    store.save(fake_results.result("padim", "cable", {"image_auroc": 0.25}))
    after = cache.now()
    assert {s.result.spec.task for s in after.runs.values()} == {"bottle", "cable", "pill", "candle"}
    assert len(after.runs) == 5
    assert (
        cache.run(next(i for i, f in after.ids.items() if f.startswith("padim-mvtec_ad-cable"))).result.rows[0].value
        == 0.25
    )
    assert after.versions["visa"] == before.versions["visa"]
    assert after.versions["mvtec_ad"] != before.versions["mvtec_ad"]


def test_the_index_gives_the_same_as_reading_folders(store, monkeypatch):
    slow = RunCache(store)
    monkeypatch.setattr(run_cache, "READ_ONE_BY_ONE", 1)
    quick = RunCache(store)
    for folder, cached in slow.now().runs.items():
        other = quick.now().runs[folder]
        assert cached.stamp == other.stamp
        assert fake_results.plain([cached.result]) == fake_results.plain([other.result])
    slow.close()
    quick.close()


@pytest.mark.parametrize("few", [1, 500])
def test_a_damaged_folder_is_reported_and_hides_no_other(cache, store, monkeypatch, few):
    monkeypatch.setattr(run_cache, "READ_ONE_BY_ONE", few)
    folders = list(store.folders())
    for folder in folders[:2]:
        (folder / "result.json").write_text("{")
    now = cache.now()
    assert len(now.runs) == 3
    assert set(now.damaged) == {f.name for f in folders[:2]}
    assert str(store.root) not in next(iter(now.damaged.values()))
    shutil.rmtree(folders[0])
    assert set(cache.now().damaged) == {folders[1].name}


@pytest.mark.parametrize("name", ["..", "../runs", ".logs", "", "/etc", "padim", "x" * 300])
def test_only_known_names_become_paths(cache, name):
    with pytest.raises(UnknownName):
        cache.path(name)


def test_comparisons_are_cached_until_a_run_changes(cache, store):
    visa, mvtec = RunQuery(("visa",)), RunQuery(("mvtec_ad",))
    cached = cache.comparisons(visa)
    (before,) = cache.comparisons(mvtec)
    store.save(fake_results.result("dfm", "pill"))
    assert cache.comparisons(visa)[0] is cached[0]
    (after,) = cache.comparisons(mvtec)
    assert len(before.categories("image_auroc")) == 2
    assert len(after.categories("image_auroc")) == 3
    (scored,) = cache.comparisons(mvtec, scores=True)
    assert scored.entries[0].cases
    assert not after.entries[0].cases


def test_a_test_within_a_task_can_be_chosen(cache, store):
    from iadbe.types import Row

    rows = tuple(Row(0, c, "image_auroc", 0.5) for c in ("nut", "tile"))
    store.save(fake_results.result("padim", "nut+tile", rows=rows))
    (found,) = cache.comparisons(RunQuery(("mvtec_ad",), ("tile",)))
    assert found.categories("image_auroc") == ("tile",)


def test_unknown_names_get_suggestions(cache):
    with pytest.raises(UnknownName, match="Did you mean padim"):
        cache.select(RunQuery(detector=("padin",)))
    with pytest.raises(UnknownName, match="seed 7"):
        cache.select(RunQuery(seed=(7,)))


def test_concurrent_readers_while_runs_are_added(cache, store):
    wrong = []

    def read():
        for _ in range(20):
            try:
                assert len(cache.now().runs) >= 5
                cache.comparisons(RunQuery())
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
    assert len(cache.now().runs) == 15


def test_stamps_skip_other_files(store):
    (store.root / ".part").mkdir(exist_ok=True)
    (store.root / "empty").mkdir()
    (store.root / "file").write_text("")
    assert len(stamps(store.root)) == 5
    assert stamps(store.root / "none") == {}


def test_runs_are_counted_by_field(cache, store):
    now = cache.now()
    assert now.counts("dataset") == {"mvtec_ad": 4, "visa": 1}
    assert now.counts("detector") == {"padim": 3, "dfm": 2}
    assert now.counts("category")["bottle"] == 2
    assert {s.result.spec.task for s in now.runs_on("visa")} == {"candle"}
    assert now.runs_on("none") == []
    store.save(fake_results.result("dfm", "candle", dataset="visa"))
    assert cache.now().counts("dataset")["visa"] == len(cache.now().runs_on("visa")) == 2


def test_scores_are_read_once_for_each_run(cache, store, monkeypatch):
    read = []
    original = run_cache.read_cases
    monkeypatch.setattr(run_cache, "read_cases", lambda store, folder: read.append(folder) or original(store, folder))
    mvtec = RunQuery(("mvtec_ad",))
    (before,) = cache.comparisons(mvtec, scores=True)
    assert len(read) == 4
    store.save(fake_results.result("dfm", "pill", scores=fake_results.scores("pill")))
    (after,) = cache.comparisons(mvtec, scores=True)
    assert len(read) == 5
    assert sum(len(e.cases) for e in after.entries) == sum(len(e.cases) for e in before.entries) + 1


def test_comparisons_with_scores_are_those_of_whole_runs(cache, store):
    from iadbe.results.builder import entry_interval, entry_samples
    from iadbe.results.comparison import compare
    from iadbe.types import Row

    rows = tuple(Row(0, c, "image_auroc", 0.5) for c in ("nut", "tile"))
    both = (*fake_results.scores("nut", seed=1), *fake_results.scores("tile", seed=2))
    store.save(fake_results.result("padim", "nut+tile", rows=rows, scores=both))
    store.save(fake_results.result("padim", "cable", seed=1, scores=fake_results.scores("cable", seed=3)))
    store.save(fake_results.result("dfm", "pill", error="no memory left"))
    for which in (RunQuery(("mvtec_ad",)), RunQuery(("mvtec_ad",), ("tile",)), RunQuery(("mvtec_ad",), seed=(1,))):
        found = cache.comparisons(which, scores=True)
        chosen = [s.result for s in run_cache.matching(cache.now().runs_on("mvtec_ad"), which)]
        whole = compare(which.restrict(store.load(run_cache.folder_name(r.spec))) for r in chosen)
        pairs = [[(c, e) for c in every for e in c.entries] for every in (found, whole)]
        assert [(c.title, e.name) for c, e in pairs[0]] == [(c.title, e.name) for c, e in pairs[1]]
        assert any(entry.cases for _, entry in pairs[0])
        for one, other in zip(*pairs, strict=True):
            assert list(one[1].cases) == list(other[1].cases)
            assert entry_interval(*one, "image_auroc") == entry_interval(*other, "image_auroc")
            assert str(entry_samples(*one, "image_auroc")) == str(entry_samples(*other, "image_auroc"))


def test_a_run_whose_scores_cannot_be_read_is_left_out_with_scores(cache, store):
    mvtec = RunQuery(("mvtec_ad",))
    (store.path(fake_results.spec("dfm", "cable")) / "scores.csv").write_text("step,test\n0,cable\n")
    (without,) = cache.comparisons(mvtec)
    (scored,) = cache.comparisons(mvtec, scores=True)
    assert [len(e.runs) for e in without.entries] == [2, 2]
    assert {e.name: len(e.runs) for e in scored.entries} == {"dfm": 1, "padim": 2}


def test_reading_scores_can_be_stopped(cache):
    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cache.comparisons(RunQuery(("mvtec_ad",)), scores=True, check=stop)
    assert cache.comparisons(RunQuery(("mvtec_ad",)), scores=True)[0].entries[0].cases
