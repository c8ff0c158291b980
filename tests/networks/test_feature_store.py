import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from fake_grids import paths
from iadbe.networks import feature_store
from iadbe.networks.feature_store import Counters, FeatureStore, current, using
from iadbe.types import Options

ROW = np.random.default_rng(0).random((4, 3, 3), dtype=np.float32)
COST = ROW.nbytes + 128 + len("iadbe w/1/a\n") + 4  # bytes of a row on disk


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "features")


def age(store, key, seconds, suffix=".npy"):
    path = store._path("w", 1, key).with_suffix(suffix)
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_row_is_read_as_it_was_written(store):
    assert store.get("w", 1, "a") is None
    store.put("w", 1, "a", ROW)
    found = store.get("w", 1, "a")
    assert found.dtype == np.float32
    assert np.array_equal(found, ROW)
    assert store.get("w", 2, "a") is None
    assert store.get("v", 1, "a") is None


def test_a_row_that_was_read_stays_when_it_is_removed(store):
    store.put("w", 1, "a", ROW)
    found = store.get("w", 1, "a")
    store.clear()
    assert np.array_equal(found, ROW)
    assert store.get("w", 1, "a") is None


def test_a_writer_killed_half_way_leaves_no_row(store, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt  # like a kill: nothing of put runs after it

    store.put("w", 1, "a", ROW)
    monkeypatch.setattr(feature_store, "_checksum", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put("w", 1, "b", ROW)
    monkeypatch.undo()
    assert store.get("w", 1, "b") is None
    assert sum(rows for rows, _ in store.networks().values()) == 1
    assert len(list(store.root.rglob("*.part"))) == 1


def test_parts_of_killed_writers_are_removed_but_not_those_of_running_ones(store):
    folder = store._path("w", 1, "x").parent
    folder.mkdir(parents=True)
    for name in ("dead", "alive"):
        (folder / f"{name}.part").write_bytes(b"half")
    age(store, "dead", 2 * feature_store.STALE_SECONDS, ".part")
    store.put("w", 1, "a", ROW)
    assert [p.stem for p in store.root.rglob("*.part")] == ["alive"]


def test_a_row_is_a_numpy_file_with_address_and_checksum(store):
    store.put("w", 1, "a", ROW)
    content = store._path("w", 1, "a").read_bytes()
    assert np.array_equal(np.load(store._path("w", 1, "a")), ROW)
    assert content[128 + ROW.nbytes :] == b"iadbe w/1/a\n" + zlib.crc32(content[:-4]).to_bytes(4, "little")


def test_a_row_is_flushed_to_the_disk_before_it_has_its_name(store, monkeypatch):
    flushed = []
    monkeypatch.setattr(feature_store.os, "fsync", lambda file: flushed.append(list(store.root.rglob("*.npy"))))
    store.put("w", 1, "a", ROW)
    assert flushed == [[]]
    store.put_all("w", [(layer, "b", ROW) for layer in range(5)])
    assert flushed[1:] == [[store._path("w", 1, "a")]] * 5


def test_a_row_can_be_read_into_an_array(store):
    store.put("w", 1, "a", ROW)
    out = np.zeros((2, *ROW.shape), np.float32)
    assert store.get("w", 1, "a", out[1]) is not None
    assert np.array_equal(out[1], ROW)
    assert not out[0].any()
    assert store.get("w", 1, "a", np.empty((4, 3, 4), np.float32)) is None, "another shape"


@pytest.mark.parametrize("keep", [0, 10, 100, -1])
def test_a_damaged_row_is_not_used_and_is_written_again(store, keep):
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


@pytest.mark.parametrize("step", ["os.fsync", "_checksum", "tempfile.NamedTemporaryFile", "system.replace"])
def test_a_full_disk_is_no_error(store, monkeypatch, step):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"iadbe.networks.feature_store.{step}", full)
        store.put("w", 1, "a", ROW)
        store.put_all("w", [(1, "b", ROW), (2, "b", ROW)])
    assert store.get("w", 1, "a") is None
    assert store.get("w", 1, "b") is None
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


def test_usage_ignores_a_line_that_was_cut_short(store):
    assert store.usage() == Counters()
    with using(store) as counters:
        counters.computed = 3
    assert store.usage() == Counters(), "there is no store yet to keep it"
    store.put("w", 1, "a", ROW)
    for computed, stored in ((3, 0), (0, 3)):
        store.record(Counters(computed, stored, stored))
    with (store.root / feature_store.USAGE_FILE).open("ab") as file:
        file.write(b"5 6\n")  # as earlier versions wrote it
        file.write(b"12")
    assert store.usage() == Counters(8, 9, 3)
    assert store.networks() == {"w": (1, store.size())}


def test_the_store_is_where_the_options_say_or_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path))
    assert feature_store.open_store(Options()).root == tmp_path / "features"
    assert feature_store.open_store(Options(features="off")) is None
    assert feature_store.open_store(Options(features="elsewhere")).root == Path("elsewhere")
