"""A store of ten thousand runs: every page takes less than a second, and a new run appears at once."""

import gc
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import pytest

import fake_results
from iadbe.report import summary
from iadbe.results import published, significance
from iadbe.running.store import Store

pytest.importorskip("fastapi", reason="the server needs the extra web")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from http_client import opened
from iadbe.dashboard.layout import PAGES
from iadbe.web import leaderboard, run_cache

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
DETECTORS = [
    "patchcore",
    "padim",
    "stfpm",
    "dfm",
    "fastflow",
    "cflow",
    "simplenet",
    "spade",
    "rkde",
    "dfkde",
    "csflow",
    "uflow",
    "cfa",
    "softpatch",
    "musc",
]
DATA = {"mvtec_ad": 15, "visa": 12, "btad": 3, "mpdd": 6, "mvtec_3d": 10, "kolektor_sdd": 1, "real_iad": 37}
SEEDS = 8
SECONDS = 1.0  # of CPU time, which does not depend on other processes


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A store with 10 080 runs."""
    store, rng = Store(tmp_path_factory.mktemp("many") / "runs"), random.Random(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for seed in range(SEEDS):
            for detector in DETECTORS:
                for dataset, categories in DATA.items():
                    for n in range(categories):
                        values = {m: rng.uniform(0.6, 1) for m in METRICS}
                        task, more = f"part{n:02}", {"seed": seed, "dataset": dataset, "metrics": METRICS}
                        store.save(fake_results.result(detector, task, values, **more))
    return store


@pytest.fixture(scope="module")
def browser(many):
    with opened(many) as client:
        assert client.get("/api/v1/runs?limit=1").json()["total"] == SEEDS * len(DETECTORS) * sum(DATA.values())
        gc.collect()
        gc.freeze()  # else a request now and then walks through all that the other tests of this process hold
        yield client
        gc.unfreeze()


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path, _ in PAGES])
def test_a_page_takes_less_than_a_second(browser, path):
    browser.get(path)  # the first request builds the cache
    began = time.process_time()
    assert browser.get(path).status_code == 200
    assert time.process_time() - began < SECONDS


@pytest.mark.slow
def test_a_new_run_is_found_without_reading_the_others_again(browser, many):
    many.save(fake_results.result("padim", "part99", {"image_auroc": 0.5}, dataset="visa", metrics=METRICS))
    time.sleep(1.1)  # the folders are checked once a second
    began = time.process_time()
    found = browser.get("/api/v1/runs?category=part99").json()
    assert time.process_time() - began < 2 * SECONDS
    assert found["total"] == 1


PARTS = (
    (os, "stat"), (json, "loads"), (run_cache, "compare"), (run_cache, "read"), (leaderboard, "ranking_of"),
    (leaderboard, "by_category_of"), (significance, "ranks"), (summary, "_summary"), (published, "_mean"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/runs", "/compare", "/data", "/detectors", "/new", "/training"])
def test_a_page_that_was_shown_before_reads_and_computes_nothing_for_each_run(browser, monkeypatch, path):
    """The same as the test of its seconds, on any machine: what grows with the store is not done again."""
    monkeypatch.setattr(run_cache, "MAX_AGE", 3600.0)  # the folders are not checked meanwhile
    browser.get(path)
    calls = Counter()

    def counted(name, original):
        return lambda *given, **more: (calls.update([name]), original(*given, **more))[1]

    for module, name in PARTS:
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    assert browser.get(path).status_code == 200
    few = {name: calls.pop(name, 0) for name in ("stat", "loads")}  # of the runs that the page lists
    assert not calls
    assert max(few.values()) <= 4 * 50


def cli_seconds(*arguments):
    """Return the CPU seconds of a command in a process of its own."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "use = resource.getrusage(resource.RUSAGE_CHILDREN); print(use.ru_utime + use.ru_stime)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "iadbe", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_results_of_unchanged_runs_take_less_than_a_second(many):
    asked = ("results", "--store", str(many.root), "--data", "mvtec_ad,visa,btad,mpdd")
    first = cli_seconds(*asked)
    assert cli_seconds(*asked) < min(SECONDS, first / 2)


@pytest.mark.slow
def test_a_table_after_one_new_run_imports_neither_sqlalchemy_nor_scipy(many):
    """Each takes as long to import as the rest of the work; nothing that is kept needs them."""
    asked = ["results", "--store", str(many.root), "--data", "visa"]
    code = f"import sys; from iadbe.cli import main; code = main({asked!r}); "
    code += "print('imported', *{'sqlalchemy', 'scipy', 'torch'} & set(sys.modules)); sys.exit(code)"

    def imported():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1].split()[1:]

    cli_seconds(*asked)  # makes the index
    many.save(fake_results.result("padim", "part98", {"image_auroc": 0.5}, dataset="visa", metrics=METRICS))
    assert imported() == []
