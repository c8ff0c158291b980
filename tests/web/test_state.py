import json
import os
import shutil
import subprocess
import sys

import pytest

import fake_results
from iadbe.jobs.queue import Queue
from iadbe.running.store import Store
from iadbe.web.policy import Policy


def test_rates_follow_the_policy(serve, filled):
    server = serve(filled, Policy(predict_rate=3, failures=2)).server
    assert (server.predict_limiter.size, server.login_limiter.size) == (3, 2)


def test_shutdown_ends_streams(serve, filled):
    client = serve(filled)
    assert not client.server.shutting_down.is_set()
    client.__exit__(None, None, None)
    assert client.server.shutting_down.is_set()
    client.__enter__()  # the fixture leaves it once more


READ_ONLY = """
import json, sys
from pathlib import Path
from http_client import opened
from iadbe.running.store import Store
root, job = Path(sys.argv[1]), sys.argv[2]
with opened(Store(root)) as client:
    pages = {p: client.get(p).status_code for p in ("/", "/runs", "/jobs", f"/jobs/{job}", "/data", "/new", "/inspect")}
    writes = {
        "add": client.post("/api/v1/jobs", json={"grid": {"detectors": ["padim"], "data": ["toy"]}}),
        "stop": client.post(f"/api/v1/jobs/{job}/stop"),
        "remove": client.delete(f"/api/v1/jobs/{job}"),
        "upload": client.post("/api/v1/datasets", data={"name": "x1"}, files={"file": ("a.zip", b"x")}),
    }
    plan = client.post("/api/v1/plan", json={"grid": {"detectors": ["padim"], "data": ["toy"]}})
    found = {"pages": pages, "writes": {k: v.status_code for k, v in writes.items()}, "plan": plan.status_code}
    found |= {"said": writes["add"].json()["detail"], "total": client.get("/api/v1/runs").json()["total"]}
    found |= {"badge": "read-only" in client.get("/").text, "text": client.get("/").text[:300]}
    print(json.dumps(found))
"""


def test_a_read_only_store_is_served_and_nothing_can_be_changed(tmp_path):
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions are tested on POSIX systems")
    without = []  # root's right to write everywhere
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and there is no setpriv")
        without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    folder = tmp_path / "read-only"
    try:
        store = Store(folder / "runs")
        store.save(fake_results.result("padim", values={"image_auroc": 0.9}))
        with Queue(store) as queue:
            job = queue.add({"detectors": ["padim"], "data": ["toy"]}).id
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [*without, sys.executable, "-c", READ_ONLY, str(folder / "runs"), job]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert set(found["pages"].values()) == {200}
        assert set(found["writes"].values()) == {403}
        assert "read-only" in found["said"]
        assert (found["plan"], found["total"], found["badge"]) == (200, 1, True)
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
