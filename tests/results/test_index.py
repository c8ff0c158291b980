import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fake_results import NAN, finish, plain, result, start_writer
from iadbe.errors import BadConfig, UnknownName
from iadbe.results.index import FILE, RunIndex, RunQuery, SyncReport, rebuild
from iadbe.running.store import Store
from iadbe.types import Row


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "runs")
    for detector in ("padim", "patchcore"):
        for task in ("bottle", "cable"):
            store.save(result(detector, task, {"image_auroc": 0.9, "pixel_auroc": NAN}))
    store.save(result("stfpm", "cable", error="out of memory"))
    return store


class TestSync:
    def test_sync_and_rebuild_give_what_the_folders_hold(self, store):
        truth = [replace(r, scores=()) for r in store]
        with RunIndex(store) as index:
            assert index.sync() == SyncReport(5, 0, ())
            assert index.sync() == SyncReport(0, 0, ())
            assert plain(index.results()) == plain(truth)
            assert index.rebuild() == 5
            assert plain(index.results()) == plain(truth)
        assert rebuild(store) == 5

    def test_it_follows_the_folders(self, store):
        with RunIndex(store) as index:
            index.sync()
            shutil.rmtree(store.path(result("padim", "bottle").spec))
            changed = result("padim", "cable", {"image_auroc": 0.25})
            store.save(changed)
            store.save(result("dfm", "cable"))
            assert index.sync() == SyncReport(2, 1, ())
            values = {r.spec.detector: r.rows for r in index.results(RunQuery(category=("cable",)))}
            assert values["padim"] == (Row(0, "cable", "image_auroc", 0.25),)
            assert "dfm" in values

    def test_an_added_run_needs_no_sync(self, store):
        with RunIndex(store) as index:
            index.sync()
            new = result("dfm", "bottle")
            store.save(new)
            index.add(new)
            assert index.sync() == SyncReport(0, 0, ())

    def test_a_damaged_folder_is_named_and_does_not_hide_the_others(self, store):
        folders = list(store.folders())
        (folders[0] / "result.json").write_text("{")
        document = json.loads((folders[1] / "result.json").read_text())
        (folders[1] / "result.json").write_text(json.dumps({**document, "rows": [[0]]}))
        (folders[2] / "result.json").write_text(json.dumps({**document, "environment": None}))
        with RunIndex(store) as index:
            synced = index.sync()
            assert synced.added == 2
            assert all(any(f.name in message for message in synced.damaged) for f in folders[:3])
            assert len(index.results()) == 2
            assert index.damaged == synced.damaged

    def test_a_run_that_gets_damaged_leaves_the_index(self, store):
        with RunIndex(store) as index:
            index.sync()
            (next(store.folders()) / "result.json").write_text("null")
            assert index.sync().removed == 1
            assert len(index.results()) == 4


class TestQuestions:
    @pytest.mark.parametrize(
        ("which", "count"),
        [
            (RunQuery(), 5),
            (RunQuery(detector=("padim", "stfpm")), 3),
            (RunQuery(category=("cable",)), 3),
            (RunQuery(dataset=("mvtec_ad",), seed=(0,), detector=("padim",)), 2),
        ],
    )
    def test_which(self, store, which, count):
        with RunIndex(store) as index:
            assert len(index.results(which)) == count

    def test_a_category_is_also_a_test_within_a_task(self, store):
        rows = tuple(Row(0, c, "image_auroc", 0.5) for c in ("hazelnut", "tile"))
        store.save(result("padim", "hazelnut+tile", rows=rows))
        with RunIndex(store) as index:
            (found,) = index.results(RunQuery(category=("tile",)))
            assert found.spec.task == "hazelnut+tile"
            assert [r.test for r in found.rows] == ["tile"]
            (found,) = index.results(RunQuery(category=("hazelnut+tile",)))
            assert [r.test for r in found.rows] == ["hazelnut", "tile"]

    def test_an_unknown_name_is_an_error_that_helps(self, store):
        with RunIndex(store) as index, pytest.raises(UnknownName, match="Did you mean padim"):
            index.results(RunQuery(detector=("padin",)))

    def test_other_databases_are_refused(self, store):
        with pytest.raises(BadConfig, match="mysql"):
            RunIndex(store, "mysql://localhost/x")
        with pytest.raises(BadConfig, match="no database's URL"):
            RunIndex(store, "nonsense")


class TestTrouble:
    def test_a_deleted_or_damaged_or_old_index_is_rebuilt(self, store):
        path = store.root / FILE
        with RunIndex(store) as index:
            index.sync()
        path.write_bytes(b"this is no database, whatever its name says" * 100)
        with RunIndex(store) as index:
            assert len(index.results()) == 5
            path.unlink()
            assert len(index.results()) == 5
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE about SET schema = 0")
            connection.execute("ALTER TABLE runs DROP COLUMN error")
        connection.close()
        with RunIndex(store) as index:
            assert len(index.results()) == 5

    def test_a_damaged_page_is_repaired(self, store):
        path = store.root / FILE
        with RunIndex(store) as index:
            index.sync()
        data = bytearray(path.read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        path.write_bytes(data)
        with RunIndex(store) as index:
            assert len(index.results()) == 5

    def test_a_store_that_is_not_there_yet_has_no_runs_and_stays_away(self, tmp_path):
        with RunIndex(Store(tmp_path / "none")) as index:
            assert index.results() == []
        assert not (tmp_path / "none").exists()

    def test_many_writers(self, tmp_path):
        writers = [start_writer(tmp_path, f"d{i}", 25) for i in range(4)]
        finish(writers)
        with RunIndex(Store(tmp_path)) as index:
            assert index.sync() == SyncReport(0, 0, ())
            assert len(index.results()) == 100

    def test_a_killed_writer_leaves_whole_runs(self, tmp_path):
        writer = start_writer(tmp_path, "padim", 100_000)
        assert writer.stdout.readline() == "ready\n"
        while sum(1 for _ in Store(tmp_path).folders()) < 10:
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with sqlite3.connect(tmp_path / FILE) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            counts = connection.execute("SELECT count(n) FROM runs LEFT JOIN rows USING (folder) GROUP BY folder")
            assert {n for (n,) in counts} == {10}
        connection.close()
        with RunIndex(Store(tmp_path)) as index:
            assert len(index.results()) == sum(1 for _ in Store(tmp_path).folders())


def test_it_is_not_imported_before_it_is_needed():
    code = "import iadbe.results.index, sys; assert not {'sqlalchemy', 'torch', 'numpy'} & set(sys.modules)"
    source = str(Path(__file__).parents[2] / "src")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": source})
