"""Fixtures: a store with a few fake runs, and clients of its server."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest

import fake_results
from http_client import opened
from iadbe.running.store import Store
from part_images import draw_mvtec, draw_parts

VALUES = {"image_auroc": 0.9, "image_f1max": 0.8, "pixel_auroc": 0.95}


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """Two detectors on three categories of MVTec AD, one of them with images; a failed run; one on other data."""
    store = Store(tmp_path_factory.mktemp("filled") / "runs")
    for shift, detector in enumerate(("padim", "patchcore")):
        for n, task in enumerate(("bottle", "cable", "metal_nut")):
            values = {k: v + 0.02 * shift - 0.01 * n for k, v in VALUES.items()}
            memory = {"peak": 500 * 2**20, "model": (shift + 1) * 30_000_000}
            given = {"metrics": tuple(VALUES), "memory": memory, "date": f"2026-11-2{n}T0{shift}:00:00+00:00"}
            if (detector, task) == ("patchcore", "bottle"):
                fake_results.save(store, detector, task=task, values=values, **given)
            else:
                scores = fake_results.scores(task, seed=n)
                store.save(fake_results.result(detector, task, values, scores=scores, **given))
    store.save(fake_results.result("stfpm", "bottle", error="killed at 4.1 GB: memory limit 4.0 GB"))
    store.save(fake_results.result("padim", "candle", {"image_auroc": 0.5}, dataset="visa", metrics=("image_auroc",)))
    return store


@pytest.fixture
def serve():
    """Return :func:`opened` for clients that are closed in the end."""
    with ExitStack() as stack:
        yield lambda *given, **more: stack.enter_context(opened(*given, **more))


@pytest.fixture(scope="session")
def client(filled):
    """A client of the filled store, for tests that change nothing."""
    with opened(filled) as client:
        yield client


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """A store with a real model, fitted on little images; ``parts`` are images to score."""
    from iadbe import api
    from iadbe.seeds import run_id
    from iadbe.types import Options

    root = tmp_path_factory.mktemp("fitted")
    draw_mvtec(root / "mvtec")
    draw_parts(root / "parts", good=2, bad=2)
    options = Options(features="off", device="cpu")
    how = {"store": root / "runs", "protocol": "uniform@64", "options": options, "dims": 16}
    (trained,) = api.train("padim", str(root / "mvtec"), **how)
    run = run_id(trained.result.spec)
    return SimpleNamespace(store=Store(root / "runs"), run=run, parts=root / "parts", mvtec=root / "mvtec")


@pytest.fixture
def ids(filled):
    """Ids of runs by (detector, task)."""
    from iadbe.seeds import run_id

    found = {(r.spec.detector, r.spec.task): run_id(r.spec) for r in filled}
    return SimpleNamespace(of=lambda *key: found[key], all=set(found.values()))
