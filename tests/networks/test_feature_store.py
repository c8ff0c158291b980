import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fake_grids import paths
from iadbe.networks import feature_store
from iadbe.networks.feature_store import Counters, FeatureStore, current, using
from iadbe.types import Options

ROW = np.random.default_rng(0).random((4, 3, 3), dtype=np.float32)
COST = ROW.nbytes + 128  # bytes of a row on disk


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "features")


def age(store, key, seconds, suffix=".npy"):
    path = store._path("w", 1, key).with_suffix(suffix)
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_is_put_in_comes_out_to_the_bit(store):
    assert store.get("w", 1, "a") is None
    store.put("w", 1, "a", ROW)
    found = store.get("w", 1, "a")
    assert found.dtype == np.float32
    assert np.array_equal(found, ROW)
    assert store.get("w", 2, "a") is None
    assert store.get("v", 1, "a") is None


def test_a_row_outlives_its_eviction_while_it_is_read(store):
    store.put("w", 1, "a", ROW)
    found = store.get("w", 1, "a")
    store.clear()
    assert np.array_equal(found, ROW)
    assert store.get("w", 1, "a") is None


def test_a_writer_killed_half_way_leaves_no_row(store, monkeypatch):
    def killed(file, row, **_):
        file.write(b"\x93NUMPY half a")
        raise KeyboardInterrupt  # as near to a kill as a test can get: nothing of put runs after it

    store.put("w", 1, "a", ROW)
    monkeypatch.setattr(feature_store.np, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put("w", 1, "b", ROW)
    assert store.get("w", 1, "b") is None
    assert sum(rows for rows, _ in store.networks().values()) == 1
    assert len(list(store.root.rglob("*.part"))) == 1


def test_what_killed_writers_left_is_swept_away_but_not_from_under_a_living_one(store):
    folder = store._path("w", 1, "x").parent
    folder.mkdir(parents=True)
    for name in ("dead", "alive"):
        (folder / f"{name}.part").write_bytes(b"half")
    age(store, "dead", 2 * feature_store.STALE_SECONDS, ".part")
    store.put("w", 1, "a", ROW)
    assert [p.stem for p in store.root.rglob("*.part")] == ["alive"]


@pytest.mark.parametrize("keep", [0, 10, 100, -1])
def test_a_damaged_row_is_no_row_and_is_written_again(store, keep):
    store.put("w", 1, "a", ROW)
    path = store._path("w", 1, "a")
    path.write_bytes(path.read_bytes()[:keep])
    assert store.get("w", 1, "a") is None
    assert not path.exists()
    store.put("w", 1, "a", ROW)
    assert np.array_equal(store.get("w", 1, "a"), ROW)


def test_the_rows_unused_for_longest_go_first(tmp_path):
    store = FeatureStore(tmp_path, budget=5 * COST)
    for i, key in enumerate("abcde"):
        store.put("w", 1, key, ROW)
        age(store, key, 100 - i)
    store.get("w", 1, "a")  # the oldest is in use again
    store.put("w", 1, "f", ROW)
    left = {key for key in "abcdef" if store.get("w", 1, key) is not None}
    assert left == {"a", "d", "e", "f"}
    assert store.size() <= 0.9 * store.budget


def test_a_later_process_counts_what_is_there_already(tmp_path):
    first = FeatureStore(tmp_path)
    for key in "abcdefgh":
        first.put("w", 1, key, ROW)
        age(first, key, 100)
    later = FeatureStore(tmp_path, budget=4 * COST)
    later.put("w", 1, "new", ROW)
    assert later.size() <= later.budget
    assert later.get("w", 1, "new") is not None


def test_no_room_on_the_disk_is_no_error(store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store.np, "save", full)
    store.put("w", 1, "a", ROW)
    assert store.get("w", 1, "a") is None
    assert not list(store.root.rglob("*.part"))


def test_a_store_that_may_only_be_read_still_serves(store, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError

    store.put("w", 1, "a", ROW)
    monkeypatch.setattr(feature_store.os, "utime", forbidden)
    assert np.array_equal(store.get("w", 1, "a"), ROW)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from iadbe.networks.feature_store import FeatureStore
row = np.load(sys.argv[2])
store = FeatureStore(Path(sys.argv[1]), budget=6 * int(sys.argv[3]))
for _ in range(10):
    for key in "abcdefgh":
        store.put("w", 1, key, row)
        found = store.get("w", 1, key)
        assert found is None or np.array_equal(found, row)  # None: the other one has just evicted it
"""


def test_two_processes_write_and_evict_the_same_rows(tmp_path):
    np.save(tmp_path / "row.npy", ROW)
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(tmp_path / "row.npy"), str(COST)]
    writers = [subprocess.Popen(command, env=paths()) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    store = FeatureStore(tmp_path)
    rows = [store.get("w", 1, key) for key in "abcdefgh"]
    assert any(row is not None for row in rows)
    assert all(row is None or np.array_equal(row, ROW) for row in rows)
    assert not list(tmp_path.rglob("*.part"))


def test_a_store_is_in_use_only_where_it_was_opened(store):
    assert current() == (None, Counters())
    with using(store) as counters:
        assert current() == (store, counters)
        with using(None):
            assert current()[0] is None
        assert current()[0] is store
    assert current()[0] is None


def test_the_tally_survives_a_line_that_was_cut_short(store):
    assert store.usage() == Counters()
    with using(store) as counters:
        counters.computed = 3
    assert store.usage() == Counters(), "there is no store yet to keep it"
    store.put("w", 1, "a", ROW)
    for computed, stored in ((3, 0), (0, 3)):
        store.record(Counters(computed, stored))
    with (store.root / feature_store.USAGE_FILE).open("a") as file:
        file.write("12")
    assert store.usage() == Counters(3, 3)
    assert store.networks() == {"w": (1, store.size())}


def test_it_lies_where_the_options_say_or_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path))
    assert feature_store.open_store(Options()).root == tmp_path / "features"
    assert feature_store.open_store(Options(features="off")) is None
    assert feature_store.open_store(Options(features="elsewhere")).root == Path("elsewhere")
