import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iadbe.errors import BadConfig, BadData
from iadbe.running.store import Store, folder_name, images_index, to_json
from iadbe.seeds import run_id
from iadbe.types import Row, RunResult, RunSpec, Score

SPEC = RunSpec("padim", "toy", "vanilla", "metal", metrics=("image_auroc",), place={"root": "/home/someone/data"})
RESULT = RunResult(
    SPEC,
    rows=(Row(0, "metal", "image_auroc", 0.1 + 0.2), Row(0, "metal", "pixel_auroc", math.nan)),
    scores=(Score(0, "metal", "a,b", "metal", "good", 0.1 + 0.2), Score(0, "metal", "ü", "metal", "scratch", 1e-30)),
    notes=("one",),
    seconds={"fit": 1.5},
    latency_ms=3.25,
    memory={"peak": 10},
)


def test_checkpoints_of_training_are_removed_with_their_run_or_when_nobody_repeats_it(tmp_path):
    store, other = Store(tmp_path), replace(SPEC, seed=1)
    for spec in (SPEC, other):
        store.checkpoints(spec).mkdir(parents=True)
        store.save(RunResult(spec, error="killed"))
    assert len(list(store.folders())) == 2  # they are no runs
    store.remove(SPEC, training=False)
    assert store.checkpoints(SPEC).is_dir()
    store.forget_training(store.checkpoints(SPEC).name)
    assert not store.checkpoints(SPEC).exists()
    store.sweep()
    assert store.checkpoints(other).is_dir()
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(store.checkpoints(other), (month_ago, month_ago))
    store.sweep()
    assert not (tmp_path / ".checkpoints").exists()
    store.checkpoints(other).mkdir(parents=True)
    store.remove_folder(store.path(other))
    assert not (tmp_path / ".checkpoints").exists()


def test_what_is_saved_is_loaded_to_the_last_bit(tmp_path):
    store = Store(tmp_path)
    assert not store.has(SPEC)
    folder = store.save(RESULT)
    assert store.has(SPEC)
    loaded = store.load(folder.name)
    assert loaded.rows[0] == RESULT.rows[0]
    assert math.isnan(loaded.rows[1].value)
    assert loaded.scores == RESULT.scores
    assert (loaded.notes, loaded.seconds, loaded.latency_ms) == (("one",), {"fit": 1.5}, 3.25)
    assert run_id(loaded.spec) == run_id(SPEC)


def test_groups_steps_and_latency_ranges_are_kept_and_old_files_have_none(tmp_path):
    store = Store(tmp_path)
    grouped = tuple(s._replace(group="tile 1") for s in RESULT.scores)
    full = replace(RESULT, scores=grouped, steps={"done": 9, "planned": 4800}, latency_range_ms=(2.5, 4.0))
    folder = store.save(full)
    loaded = store.load(folder.name)
    assert loaded.scores == grouped
    assert (loaded.steps, loaded.latency_range_ms) == ({"done": 9, "planned": 4800}, (2.5, 4.0))
    raw = json.loads((store.save(RESULT) / "result.json").read_text())
    assert "group" not in (folder / "scores.csv").read_text()
    del raw["steps"], raw["latency_range_ms"]
    (folder / "result.json").write_text(json.dumps(raw))
    assert (store.load(folder.name).steps, store.load(folder.name).latency_range_ms) == ({}, ())


def test_the_file_is_portable(tmp_path):
    text = (Store(tmp_path).save(RESULT) / "result.json").read_text()
    assert "/home/someone" not in text
    assert "NaN" not in text
    assert json.loads(text)["run"] == run_id(SPEC)


def test_saving_again_replaces_the_whole_folder(tmp_path):
    store = Store(tmp_path)
    staging = store.staging(SPEC)
    (staging / "extra.txt").write_text("x")
    store.save(RESULT, staging)
    folder = store.save(RESULT)
    assert not (folder / "extra.txt").exists()
    assert [r.spec.detector for r in store] == ["padim"]


def test_a_writer_killed_at_any_moment_leaves_no_half_run(tmp_path):
    """A process saves without end and is killed; whatever is there is whole."""
    code = """
import sys
from dataclasses import replace
from itertools import count
from iadbe.running.store import Store
from iadbe.types import RunResult, RunSpec, Score
store = Store(sys.argv[1])
scores = tuple(Score(0, "t", str(i), "c", "good", 0.5) for i in range(2000))
print("ready", flush=True)
for n in count():
    store.save(RunResult(RunSpec("padim", "toy", "vanilla", "metal", seed=n % 3), scores=scores))
"""
    for delay in (0.05, 0.11, 0.23):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = Store(tmp_path)
        assert all(len(r.scores) == 2000 for r in store)
    store.sweep()
    assert not list((tmp_path / ".part").glob("*")) if (tmp_path / ".part").exists() else True


def test_a_damaged_result_is_named(tmp_path):
    store = Store(tmp_path)
    folder = store.save(RESULT)
    (folder / "result.json").write_text("{")
    with pytest.raises(BadData, match="result.json is damaged"):
        store.load(folder.name)
    with pytest.raises(BadData, match="there is no run"):
        store.load("nothing")


def test_find_by_id_by_its_beginning_and_by_name(tmp_path):
    store = Store(tmp_path)
    folder = store.save(RESULT)
    assert store.find(run_id(SPEC)) == store.find(run_id(SPEC)[:5]) == store.find(folder.name) == folder
    with pytest.raises(BadConfig, match="no run"):
        store.find("zzz")


def test_a_folder_name_is_safe():
    hostile = RunSpec("a/b", "../..", "vanilla", "x y\n" * 200)
    name = folder_name(hostile)
    assert "/" not in name
    assert "\n" not in name
    assert not name.startswith(".")
    assert len(name) < 130


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(BadConfig, match="is a file"):
        Store(tmp_path / "runs")


def test_json_has_a_format():
    assert to_json(RESULT)["format"] == 1


def test_kept_images_are_found_under_the_name_of_version_0_1(tmp_path):
    assert images_index(tmp_path) == tmp_path / "images" / "images.json"
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "pictures.json").write_text("[]")
    assert images_index(tmp_path) == tmp_path / "pictures" / "pictures.json"


def test_an_interrupt_while_writing_is_tried_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "touch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).check_writable()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith("probe")]
