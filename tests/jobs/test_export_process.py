import re
import shutil
import signal
import threading
import time

import psutil
import pytest

import fake_results
from iadbe import system
from iadbe.errors import BadConfig, IadbeError
from iadbe.jobs import export_process, exports
from iadbe.jobs.export_process import ExportReporter, carry_out
from iadbe.jobs.exports import ExportRequest
from iadbe.jobs.queue import Queue
from iadbe.jobs.worker import serve
from iadbe.running.store import STAGING, Store
from iadbe.seeds import run_id
from iadbe.types import Options
from server_fixtures import fitted  # noqa: F401  (a store with a real model)

FAKE = {"preload": ("fake_exports",)}


@pytest.fixture
def run(store):
    """The id of a run without a model."""
    store.save(fake_results.result("padim", "bottle", {"image_auroc": 0.9}))
    return run_id(next(iter(store)).spec)


def exported(store, run, name, options=None):
    """Carry out an export by one of the functions above; return the updates and the error."""
    reporter, error = ExportReporter(), ""
    try:
        carry_out(
            ExportRequest(run).as_grid(), store, options or Options(threads=1), reporter,
            f"fake_exports:{name}", **FAKE,
        )  # fmt: skip
    except IadbeError as raised:
        error = str(raised)
    return reporter, error


def test_progress_and_end_are_reported(store, run):
    reporter, error = exported(store, run, "well")
    assert error == ""
    updates = reporter.updates()
    assert [u.kind for u in updates][:2] == ["planned", "started"]
    assert {"phase": "convert", "done": 1, "total": 3} in [u.body for u in updates if u.kind == "progress"]
    assert updates[-1].kind == "finished"
    assert updates[-1].body["error"] == ""
    assert updates[1].body["detector"] == "padim"
    assert reporter.counts == {"total": 1, "already": 0, "done": 1, "failed": 0}
    assert reporter.updates() == []
    assert not export_process.log_of(store, ExportRequest(run)).exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("refuses", Options(threads=1), "^it cannot be exported: it needs depth.$"),
        ("raises", Options(threads=1), "^this is a bug: ValueError: odd shape$"),
        pytest.param(
            "dies", Options(threads=1), "the last word", marks=pytest.mark.skipif(not system.FORKS, reason="")
        ),
        ("hangs", Options(threads=1, time_limit=1), "time limit 1 s"),
        ("grows", Options(threads=1, memory_limit=300 * 2**20), "memory limit 315 MB"),
    ],
)
def test_an_error_or_a_limit_ends_it_with_a_sentence(store, run, name, options, message):
    reporter, error = exported(store, run, name, options)
    assert re.search(message, error)
    assert reporter.counts["failed"] == 1
    assert reporter.updates()[-1].body["error"] == error
    assert not list((store.root / STAGING).glob("*"))


def test_an_interrupt_leaves_nothing_behind(store, run, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pids = []
    monkeypatch.setattr(ExportReporter, "started", lambda self, run, spec, pid: pids.append(pid))

    def interrupt():
        deadline = time.monotonic() + 30
        while not list((store.root / STAGING).glob("*/half")) and time.monotonic() < deadline:
            time.sleep(0.05)
        system.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            exported(store, run, "hangs")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not psutil.pid_exists(pids[0])
    assert not list((store.root / STAGING).glob("*"))


def test_a_run_that_is_gone_has_nothing_to_export(store):
    with pytest.raises(BadConfig, match="no run in"):
        carry_out(ExportRequest("0123").as_grid(), store, Options(), ExportReporter())


def test_a_run_without_a_model_is_told_so(store, run):
    with pytest.raises(BadConfig, match="no stored model"):
        export_process.export(ExportRequest(run), store, Options())


@pytest.mark.slow
def test_a_worker_exports_a_model_into_its_run(fitted, tmp_path):  # noqa: F811
    pytest.importorskip("onnxruntime")
    store = Store(tmp_path / "copy")
    shutil.copytree(fitted.store.root, store.root)
    with Queue(store) as own:
        good = own.add(ExportRequest(fitted.run).as_grid(), {"threads": 1})
        serve(store, until_empty=True, log=lambda text: None)
        assert (own.get(good.id).state, own.get(good.id).error, own.get(good.id).done) == ("done", "", 1)
        phases = [e.body["phase"] for e in own.events(good.id) if e.kind == "progress"]
        assert phases == ["load", "convert", "compare", "store"]
    folder = store.find(fitted.run)
    stored = exports.exports_of(folder)[0]
    assert stored.holds
    assert "scores within" in stored.deviation
    inside = exports.folder_of(folder, "onnx-fp32")
    assert {file.name for file in inside.iterdir()} >= {"padim.onnx", exports.DESCRIPTION}
    assert stored.bytes == sum(f.stat().st_size for f in inside.iterdir() if f.name != exports.DESCRIPTION)
    again = store.staging(store.load(folder.name).spec)
    (again / exports.DESCRIPTION).write_text("{}")
    export_process._put(store, folder, again, ExportRequest(fitted.run))  # the old files are replaced
    assert [file.name for file in inside.iterdir()] == [exports.DESCRIPTION]
    store.remove_folder(folder)
    assert not inside.exists()
    assert not list((store.root / STAGING).glob("*"))
