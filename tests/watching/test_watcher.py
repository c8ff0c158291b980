"""Each file is judged once, its lines are written once, and it lies in one place, wherever the process is killed."""

import json
import random
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from iadbe.errors import BadConfig, BadData
from iadbe.files.input_images import InputImage
from iadbe.runtime.scored_image import ScoredImage
from iadbe.watching.journal import FILE, Journal
from iadbe.watching.watcher import LINES, Watcher

LEVELS = {"good": 20, "look": 120, "reject": 220}
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from watching.test_watcher import score
from iadbe.watching.watcher import Watcher
watcher = Watcher(Path({source!r}), Path({out!r}), score, move={move}, settle=0.0)
print("ready", flush=True)
while True:
    list(watcher.look())
    time.sleep(0.001)
"""


def score(images: list[InputImage]):
    for image in images:
        try:
            pixels, note = image.read(None)
        except BadData as error:
            yield ScoredImage(image.path, float("nan"), error=str(error))
            continue
        yield ScoredImage(image.path, float(pixels.mean()), 200.0, note=note, look_threshold=100.0)


def draw(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # other tools rename, too
    Image.fromarray(np.full((8, 9, 3), level, np.uint8)).save(part, "PNG")
    part.rename(path)


def lines(out):
    return [json.loads(line) for line in (out / LINES).read_text().splitlines()]


@pytest.fixture
def places(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "out"


def watch(places, **more):
    return Watcher(*places, score, **{"settle": 0.0, **more})


@pytest.mark.parametrize("move", [False, True])
def test_each_image_gets_its_verdict_once(places, move):
    source, out = places
    for verdict, level in LEVELS.items():
        draw(source / f"line1/{verdict}.png", level)
    watcher = watch(places, move=move)
    assert {entry.verdict for entry in watcher.look()} == set(LEVELS)
    assert watcher.waiting == 0
    assert (list(watcher.look()), watcher.waiting) == ([], 0)
    for row in lines(out):
        assert row["verdict"] == row["path"].split("/")[-1].split(".")[0]
        where = out / row["moved_to"] if move else source / "line1" / f"{row['verdict']}.png"
        assert where.is_file()
        assert row["moved_to"] == (f"{row['verdict']}/line1/{row['verdict']}.png" if move else None)
        assert row["regions"] is None
    watcher.close()
    again = watch(places, move=move)
    assert list(again.look()) == []
    assert len(lines(out)) == 3
    again.close()


def test_a_new_file_of_an_old_name_is_judged_and_overwrites_nothing(places):
    source, out = places
    watcher = watch(places, move=True)
    for _ in range(2):
        draw(source / "x.png", 20)
        assert len(list(watcher.look())) == 1
    assert sorted(p.name for p in (out / "good").iterdir()) == ["x.png", "x_2.png"]
    (out / "good/x.png").unlink()  # taken away by another tool: its name is not used again
    draw(source / "x.png", 20)
    assert [entry.target for entry in watcher.look()] == ["good/x_3.png"]
    watcher.close()


def test_an_unreadable_file_has_a_reason_and_a_half_written_one_is_waited_for(places):
    source, out = places
    draw(source / "x.png", 220)
    whole = (source / "x.png").read_bytes()
    (source / "x.png").write_bytes(whole[:50])
    watcher = watch(places, move=True, settle=0.05)
    began = time.monotonic()
    while time.monotonic() - began < 0.2:
        assert list(watcher.look()) == [], "a writer may only pause"
    (source / "x.png").write_bytes(whole)
    (source / "broken.png").write_bytes(b"no image")
    found = []
    while len(found) < 2:
        found += watcher.look()
    assert {entry.state.path: entry.verdict for entry in found} == {"x.png": "reject", "broken.png": "unreadable"}
    assert "broken.png cannot be read" in (out / "unreadable/broken.png.txt").read_text()
    assert (out / "unreadable/broken.png").read_bytes() == b"no image"
    watcher.close()


def test_pages_of_one_file_have_a_line_each_and_the_file_the_worst_verdict(places):
    source, out = places
    pages = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (20, 220, 120)]
    pages[0].save(source / "x.tiff", save_all=True, append_images=pages[1:])
    watcher = watch(places, move=True)
    (entry,) = watcher.look()
    assert (entry.verdict, entry.target) == ("reject", "reject/x.tiff")
    assert [(row["image"], row["verdict"]) for row in lines(out)] == [(0, "good"), (1, "reject"), (2, "look")]
    watcher.close()


@pytest.mark.parametrize("step", ["add", "_write", "_finish", "mark_moved"])
@pytest.mark.parametrize("before", [True, False])
def test_a_crash_at_any_step_loses_nothing(places, monkeypatch, step, before):
    source, out = places
    for number in range(3):
        draw(source / f"{number}.png", 20)
    owner = Journal if step in ("add", "mark_moved") else Watcher
    own, calls = getattr(owner, step), []

    def crash(self, *given):
        calls.append(step)
        if len(calls) == 2 and before:
            raise KeyboardInterrupt
        found = own(self, *given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return found

    watcher = watch(places, move=True)
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, crash)
        with pytest.raises(KeyboardInterrupt):
            list(watcher.look())
    watcher.close()
    after = watch(places, move=True)
    list(after.look())
    after.close()
    assert [row["path"].split("/")[-1] for row in lines(out)] == ["0.png", "1.png", "2.png"]
    assert sorted(p.name for p in (out / "good").iterdir()) == ["0.png", "1.png", "2.png"]
    assert not list(source.iterdir())


def test_lines_are_completed_from_the_journal(places):
    source, out = places
    for number in range(3):
        draw(source / f"{number}.png", 20)
    watcher = watch(places)
    list(watcher.look())
    watcher.close()
    whole = (out / LINES).read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 1):
        (out / LINES).write_bytes(whole[:kept])
        watch(places).close()
        assert (out / LINES).read_bytes() == whole
    (out / LINES).unlink()
    watch(places).close()
    assert (out / LINES).read_bytes() == whole
    (out / LINES).write_text("something else\n")
    with pytest.raises(BadConfig, match="was changed"):
        watch(places)


def test_folders_that_cannot_be_are_one_sentence(places):
    source, out = places
    with pytest.raises(BadConfig, match="there is no folder"):
        Watcher(source / "none", out, score)
    with pytest.raises(BadConfig, match="is the watched folder itself"):
        Watcher(source, source, score)


@pytest.mark.slow
@pytest.mark.parametrize("move", [True, False])
def test_fifty_random_kills_lose_and_double_nothing(tmp_path, move):
    rng, source, out = random.Random(0), tmp_path / "in", tmp_path / "out"
    source.mkdir()
    made = 0
    code = SCRIPT.format(tests=str(__file__).rpartition("watching")[0], source=str(source), out=str(out), move=move)
    for _ in range(25):  # of each mode, so fifty
        for _ in range(12):
            draw(source / f"{made}.png", rng.choice(list(LEVELS.values())))
            made += 1
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.06)
        process.kill()
        process.wait()
        process.stdout.close()
    watcher = Watcher(source, out, score, move=move, settle=0.0)
    list(watcher.look())
    watcher.close()
    counts = Counter(row["path"].rpartition("/")[2] for row in lines(out))
    assert counts == {f"{number}.png": 1 for number in range(made)}
    assert [row["number"] for row in lines(out)] == list(range(1, made + 1))
    if move:
        assert not list(source.iterdir())
        lying = [p for p in out.rglob("*.png")]
        assert sorted(p.name for p in lying) == sorted(counts)
        assert all((out / row["moved_to"]).is_file() for row in lines(out))
    else:
        assert len(list(source.glob("*.png"))) == made
    assert (out / FILE).is_file()
