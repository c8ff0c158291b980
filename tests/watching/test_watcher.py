"""One verdict for each image."""

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iadbe.errors import BadConfig
from iadbe.runtime.scored_image import ScoredImage
from iadbe.watching import hot_folder, watcher
from iadbe.watching.delivery import Sink
from iadbe.watching.hot_folder import HotFolder
from iadbe.watching.open_parts import PartRule
from iadbe.watching.watcher import Watcher

THRESHOLD, LOOK = 128.0, 64.0


def score(image):
    """Score an image by its brightness."""
    pixels, _ = image.read(None)
    return ScoredImage(image.path, float(pixels.mean()), THRESHOLD, look_threshold=LOOK, source=image)


def write(folder, name, level):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(folder / name)


def lines(out):
    return [json.loads(line) for line in (out / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def incoming(tmp_path):
    folder = tmp_path / "incoming"
    for name, level in (("a.png", 10), ("b.png", 200), ("c.png", 100)):
        write(folder, name, level)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watcher, "POLL_SECONDS", 0.01)


def watch(incoming, out, **more):
    found = Watcher(HotFolder(incoming, without=[out], settle=0), score, out, **more)
    found.run(once=True)
    return found


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_each_image_gets_a_line_and_its_file_stays(incoming, tmp_path):
    seen = []
    found = watch(incoming, tmp_path / "out", listener=seen.append)
    written = lines(tmp_path / "out")
    assert {Path(row["path"]).name: row["verdict"] for row in written} == {
        "a.png": "good", "b.png": "reject", "c.png": "look",
    }  # fmt: skip
    assert seen == written
    assert len({row["id"] for row in written}) == 3
    assert files(incoming) == {"a.png", "b.png", "c.png"}
    assert found.status.counts == {"good": 1, "reject": 1, "look": 1}
    watch(incoming, tmp_path / "out")
    assert lines(tmp_path / "out") == written  # nothing twice
    write(incoming, "a.png", 201)
    watch(incoming, tmp_path / "out")
    assert [row["verdict"] for row in lines(tmp_path / "out")[3:]] == ["reject"]  # another content


def test_files_move_to_the_folders_of_their_verdicts(incoming, tmp_path, monkeypatch):
    monkeypatch.setattr(hot_folder, "PATIENCE_SECONDS", 0.0)
    (incoming / "broken.png").write_text("no image")
    out = incoming / "out"
    watch(incoming, out, move=True)
    assert {"good/a.png", "reject/b.png", "look/c.png", "unreadable/broken.png"} < files(out)
    assert "broken.png" in (out / "unreadable/broken.png.txt").read_text()
    assert not [path for path in incoming.iterdir() if path.is_file()]
    write(incoming, "a.png", 11)
    watch(incoming, out, move=True)
    assert "good/a_2.png" in files(out)
    broken = next(row for row in lines(out) if "broken" in row["path"])
    assert broken["verdict"] is None
    assert broken["error"]


def test_what_cannot_be_decoded_yet_is_waited_for(incoming, tmp_path, monkeypatch):
    whole = (incoming / "a.png").read_bytes()
    (incoming / "a.png").write_bytes(whole[:60])
    now = [0.0]
    found = Watcher(HotFolder(incoming, settle=0, clock=lambda: now[0]), score, tmp_path / "out")
    rounds = []

    def slept(seconds):
        rounds.append(found.status.waiting)
        if len(rounds) == 3:
            (incoming / "a.png").write_bytes(whole)
        now[0] += 0.1

    monkeypatch.setattr(watcher.time, "sleep", slept)
    found.run(once=True)
    assert [row["error"] for row in lines(tmp_path / "out")] == [None] * 3


def test_the_pages_of_a_file_have_a_line_each_and_one_place(tmp_path):
    pages = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "x.tif", save_all=True, append_images=pages[1:])
    watch(tmp_path / "in", tmp_path / "out", move=True)
    assert [row["verdict"] for row in lines(tmp_path / "out")] == ["good", "reject"]
    assert "reject/x.tif" in files(tmp_path / "out")


def test_results_are_drawn(incoming, tmp_path):
    drawn = []
    watch(incoming, tmp_path / "out", draw=lambda found, name: drawn.append(name.name))
    assert sorted(drawn) == ["a", "b", "c"]


def test_a_model_without_a_threshold_moves_nothing(incoming, tmp_path):
    found = Watcher(
        HotFolder(incoming, settle=0), lambda image: ScoredImage(image.path, 1.0), tmp_path / "out", move=True
    )
    assert found.run(once=True).counts == {"": 3}
    assert files(incoming) == {"a.png", "b.png", "c.png"}


def test_a_score_that_is_no_number_is_null(tmp_path):
    row = watcher.record_of(ScoredImage(Path("a.png"), math.nan, error="broken"), 1.0)
    assert (row["score"], row["error"], row["verdict"]) == (None, "broken", None)


class Kept(Sink):
    """Keeps what it is sent in a file."""

    name = "kept"

    def __init__(self, file):
        self.file = file

    def send(self, line):
        with self.file.open("a") as opened:
            opened.write(f"{line}\n")


def test_sinks_get_every_verdict(incoming, tmp_path):
    watch(incoming, tmp_path / "out", sinks=[Kept(tmp_path / "kept")])
    assert [json.loads(line) for line in (tmp_path / "kept").read_text().splitlines()] == lines(tmp_path / "out")


def part_images(folder, parts):
    for name, levels in parts.items():
        for view, level in levels.items():
            write(folder, f"{name}_{view}.png", level)


def test_a_part_has_one_line_and_its_files_move_together(tmp_path):
    incoming, out = tmp_path / "in", tmp_path / "out"
    part_images(incoming, {"1": {"a": 10, "b": 200}, "2": {"a": 10, "b": 20}, "3": {"a": 10}})
    seen = []
    rule = PartRule(r"^(\d+)_", images=2, threshold=THRESHOLD)
    found = watch(incoming, out, move=True, parts=rule, listener=seen.append)
    written = {row["part"]: row for row in lines(out)}
    assert {name: row["verdict"] for name, row in written.items()} == {"1": "reject", "2": "good", "3": None}
    assert written["3"]["error"] == "1 of 2 images have come"
    assert [Path(row["path"]).name for row in written["1"]["images"]] == ["1_a.png", "1_b.png"]
    assert written["1"]["highest"].endswith("1_b.png")
    assert written["1"]["images"][0]["moved_to"].endswith("reject/1_a.png")
    assert {"reject/1_a.png", "reject/1_b.png", "good/2_a.png", "good/2_b.png"} <= files(out)
    assert files(incoming) == {"3_a.png"}
    assert seen == lines(out)
    assert found.status.counts == {"reject": 1, "good": 1, "": 1}
    again = watch(incoming, out, move=True, parts=rule)
    assert len(lines(out)) == 3  # nothing twice
    assert again.status.counts == found.status.counts


def test_an_unreadable_image_of_a_part_has_a_line_and_the_part_is_not_good(tmp_path, monkeypatch):
    monkeypatch.setattr(hot_folder, "PATIENCE_SECONDS", 0.0)
    part_images(tmp_path / "in", {"1": {"a": 10}})
    (tmp_path / "in" / "1_b.png").write_text("no image")
    watch(tmp_path / "in", tmp_path / "out", move=True, parts=PartRule(r"^(\d+)_", images=2))
    single, part = lines(tmp_path / "out")
    assert "part" not in single
    assert part["verdict"] is None
    assert "1 of 2 images could not be scored" in part["error"]
    assert "unreadable/1_b.png" in files(tmp_path / "out")
    assert files(tmp_path / "in") == {"1_a.png"}


def test_open_parts_are_not_forgotten_by_a_call_without_the_rule(tmp_path):
    incoming, out = tmp_path / "in", tmp_path / "out"
    part_images(incoming, {"1": {"a": 10}})
    found = Watcher(HotFolder(incoming, settle=0), score, out, parts=PartRule(r"^(\d+)_", images=2))
    out.mkdir()
    with found._opened() as (journal, log):
        found._recover(journal, log)
        found._round(journal, log, [])
    with pytest.raises(BadConfig, match="give --part again"):
        watch(incoming, out)
    part_images(incoming, {"1": {"b": 10}})
    watch(incoming, out, parts=PartRule(r"^(\d+)_", images=2))
    assert [(row["part"], len(row["images"])) for row in lines(out)] == [("1", 2)]


SCRIPT = """
import sys
from pathlib import Path
import test_watcher
from test_watcher import HotFolder, Kept, Watcher, score
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
sinks = [Kept(out.parent / "kept")]
Watcher(HotFolder(folder, settle=0), score, out, move=True, sinks=sinks).run(once=len(sys.argv) > 3)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_nothing_is_lost_or_judged_twice_over_random_kills(tmp_path):
    """50 kills at random moments while images come in: every image has one line, one place, and reaches the sink."""
    incoming, out, rng = tmp_path / "incoming", tmp_path / "out", random.Random(0)
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent), str(tests.parents[1] / "src")])
    command = [sys.executable, "-c", SCRIPT, str(incoming), str(out)]
    environment = {**os.environ, "PYTHONPATH": paths}
    count = 0
    for _ in range(50):
        for _ in range(20):
            write(incoming, f"{count:04d}.png", count % 250)
            count += 1
        process = subprocess.Popen(command, env=environment)
        journal = out / "journal.sqlite-wal"
        deadline = time.monotonic() + 60
        while not journal.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "end"], env=environment, check=True, timeout=120)
    found = lines(out)
    names = sorted(Path(row["path"]).name for row in found)
    assert names == [f"{n:04d}.png" for n in range(count)]
    for row in found:
        number = int(Path(row["path"]).stem)
        expected = "good" if number % 250 < LOOK else "look" if number % 250 < THRESHOLD else "reject"
        assert row["verdict"] == expected
    assert not files(incoming)
    placed = [path.name for verdict in ("good", "look", "reject") for path in (out / verdict).iterdir()]
    assert sorted(placed) == names
    sent = [json.loads(line)["id"] for line in (tmp_path / "kept").read_text().splitlines() if line.endswith("}")]
    assert set(sent) == {row["id"] for row in found}


PART_SCRIPT = """
import sys
from pathlib import Path
import test_watcher
from iadbe.watching.csv_file import CsvFile
from test_watcher import HotFolder, PartRule, Watcher, score
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
rule = PartRule(r"^([0-9]+)_", images=3, seconds=60.0)
sinks = [CsvFile(out.parent / "parts.csv")]
Watcher(HotFolder(folder, settle=0), score, out, move=True, sinks=sinks, parts=rule).run(once=len(sys.argv) > 3)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_parts_and_their_table_survive_random_kills(tmp_path):
    """Images of parts come in any order while the process is killed: one line, one row and one place for each part."""
    incoming, out, rng = tmp_path / "incoming", tmp_path / "out", random.Random(1)
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent), str(tests.parents[1] / "src")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", PART_SCRIPT, str(incoming), str(out)]
    images = [(part, view) for part in range(60) for view in "abc"]
    rng.shuffle(images)
    incoming.mkdir()
    for start in range(0, len(images), 12):
        for part, view in images[start : start + 12]:
            write(incoming, f"{part}_{view}.png", 200 if view == "b" and part % 3 == 0 else 10)
        process = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 60
        while not (out / "journal.sqlite-wal").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "end"], env=environment, check=True, timeout=120)
    found = {row["part"]: row for row in lines(out)}
    assert len(found) == len(lines(out)) == 60
    for name, row in found.items():
        verdict = "reject" if int(name) % 3 == 0 else "good"
        assert (row["verdict"], len(row["images"])) == (verdict, 3)
        assert all((out / verdict / f"{name}_{view}.png").exists() for view in "abc")
    assert not files(incoming)
    with (tmp_path / "parts.csv").open(encoding="utf-8", newline="") as table:
        ids = [row["id"] for row in csv.DictReader(table)]
    assert ids == [row["id"] for row in lines(out)]
