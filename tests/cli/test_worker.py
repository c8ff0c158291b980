import builtins
import sys
import types

import pytest


def test_an_address_is_needed(iadbe):
    output = iadbe("worker")
    assert output.code == 2
    assert "address" in output.err


def test_it_takes_the_jobs_of_a_store(iadbe, monkeypatch, elsewhere):
    from iadbe.jobs import worker
    from iadbe.jobs.queue import Queue
    from iadbe.running.store import Store

    with Queue(Store("runs")) as queue:
        job = queue.add({"detectors": ["padim"], "data": ["nonsense-folder"]})
        output = iadbe("worker", "--store", "runs", "--until-empty")
        assert output.code == 0
        assert queue.get(job.id).state == "failed"
        assert f"{job.id}: failed: no dataset is named" in output.out
    called = []
    monkeypatch.setattr(worker, "serve", lambda store, url, **how: called.append((store.root.name, url, how)))
    monkeypatch.setenv("IADBE_DATABASE", "postgresql://me@here/x")
    assert iadbe("worker", "--store", "runs", "--device", "cpu", "--jobs", "3").code == 0
    assert called == [("runs", "postgresql://me@here/x", {"jobs": 3, "device": "cpu", "until_empty": False})]
    assert iadbe("worker", "--store", "runs", "tcp://here:8786").code == 2


def test_it_serves_the_scheduler_at_the_address(iadbe, monkeypatch):
    called = []
    executor = types.ModuleType("iadbe.executors.dask")
    executor.serve = lambda *given: called.append(given)
    monkeypatch.setitem(sys.modules, "iadbe.executors.dask", executor)
    monkeypatch.setattr("iadbe.executors.dask", executor, raising=False)
    assert iadbe("worker", "tcp://here:8786", "--jobs", "2", "--device", "cpu").code == 0
    assert called == [("tcp://here:8786", 2, "cpu")]


def test_a_missing_extra_is_one_sentence(iadbe, monkeypatch):
    load = builtins.__import__

    def without(name, *more):
        if name.split(".")[0] in ("dask", "distributed"):
            raise ImportError(name)
        return load(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "iadbe.executors.dask", raising=False)
    monkeypatch.delattr("iadbe.executors.dask", raising=False)
    output = iadbe("worker", "tcp://here:8786")
    assert output.code == 1
    assert "pip install 'iadbe[dask]'" in output.err


def test_a_scheduler_that_is_not_there_is_one_sentence(iadbe):
    pytest.importorskip("distributed")
    output = iadbe("worker", "nonsense://x")
    assert output.code == 1
    assert "dask scheduler" in output.err
