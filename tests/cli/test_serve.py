import builtins
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

import tied
from iadbe.cli import serve
from iadbe.errors import BadConfig

pytest.importorskip("uvicorn", reason="the server needs the extra web")
JOB = {
    "grid": {
        "detectors": [{"name": "padim", "dims": 16}],
        "data": [{"name": "toy", "categories": ["metal"], "count": 8}],
        "protocol": "uniform@64",
    },
    "options": {"device": "cpu", "threads": 1, "jobs": 1},
    "title": "small",
}


class Server:
    """`iadbe serve` in a process of its own."""

    def __init__(self, store, *more, **environment):
        words = ("-m", "iadbe", "serve", "--store", store, "--port", "0", "--device", "cpu", *more)
        self.process = subprocess.Popen(
            tied.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        self.opened = []
        self.output = self.process.stdout.readline()
        self.port = int(re.search(r":(\d+)$", self.output.strip())[1])

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"X-IADBE": "1", "Content-Type": "application/json", **headers})
        self.opened += [connection, answer := connection.getresponse()]
        return answer

    def get(self, path):
        return json.loads(self.ask("GET", path).read())

    def states(self, job):
        """Follow a job to its end and return its states."""
        found = []
        for raw in self.ask("GET", f"/api/v1/events?job={job}"):
            if raw.startswith(b"data: ") and b'"state"' in raw:
                found.append(json.loads(raw[6:])["state"])
        return found

    def end(self, number=signal.SIGTERM):
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        code = self.process.wait(40)
        self.errors = self.process.stderr.read()
        for each in (*self.opened, self.process.stdin, self.process.stdout, self.process.stderr):
            each.close()
        _, alive = psutil.wait_procs(children, timeout=30)
        return code, alive


@pytest.fixture
def start():
    """Start servers that are gone in the end, however the test ends."""
    servers = []

    def started(*given, **environment):
        servers.append(Server(*given, **environment))
        return servers[-1]

    yield started
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


@pytest.mark.slow
def test_a_job_survives_a_restart_and_is_done_by_the_next_servers_worker(elsewhere, start):
    server = start("runs", "--workers", "0")
    job = json.loads(server.ask("POST", "/api/v1/jobs", JOB).read())["id"]
    assert server.get(f"/api/v1/jobs/{job}")["state"] == "queued"
    assert server.end() == (0, [])
    server = start("runs")
    assert server.states(job)[-1] == "done"
    over = server.get(f"/api/v1/jobs/{job}")
    assert (over["done"], over["failed"], over["total"]) == (1, 0, 1)
    (run,) = over["runs"]
    assert run["values"]["image_auroc"] > 0.5
    assert server.get("/api/v1/leaderboard?dataset=toy")["tables"][0]["rows"][0]["detector"]["text"] == "padim"
    assert server.get("/api/v1/models")[0]["id"] == run["id"]
    assert server.get(f"/api/v1/runs/{run['id']}")["environment"]["command"] == "iadbe benchmark job.yaml"
    assert server.end() == (0, [])


def test_a_server_that_is_killed_takes_its_worker_along(elsewhere, start):
    server = start("runs")
    parent = psutil.Process(server.process.pid)
    deadline = time.monotonic() + 30
    while not parent.children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert parent.children()
    assert server.end(signal.SIGKILL) == (-signal.SIGKILL, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ready", [False, True])
def test_it_ends_without_a_word_whether_its_worker_is_ready_or_not(elsewhere, start, number, ready):
    """A thread of the worker reads the standard input, whose lock must not crash the interpreter at its end."""
    server = start("runs")
    parent = psutil.Process(server.process.pid)
    deadline = time.monotonic() + 60
    while not (workers := parent.children()) or (ready and workers[0].num_threads() < 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.end(number) == (0, [])
    assert server.errors == ""


def test_where_others_reach_it_there_is_a_token(elsewhere, start):
    server = start("runs", "--host", "0.0.0.0", "--workers", "0")
    token = server.process.stdout.readline().split()[-1]
    assert len(token) >= 40
    assert server.ask("GET", "/api/v1/runs").status == 401
    assert server.ask("GET", "/api/v1/runs", Authorization=f"Bearer {token}").status == 200
    assert server.end() == (0, [])
    server = start("runs", "--workers", "0", IADBE_TOKEN="a-token-of-my-own-choice")
    assert "that you gave" in server.process.stdout.readline()
    assert server.ask("GET", "/api/v1/runs").status == 401
    taken = subprocess.run(
        [sys.executable, "-m", "iadbe", "serve", "--port", str(server.port), "--workers", "0"],
        capture_output=True,
        text=True,
    )
    assert taken.returncode == 1
    assert "is taken" in taken.stderr
    server.end()


def test_wrong_options_are_reported(iadbe, elsewhere):
    assert "0 to 65535" in iadbe("serve", "--port", "70000").err
    assert "at least 16" in iadbe("serve", "--token", "short").err
    assert "there is no folder" in iadbe("serve", "--data", "x=nowhere").err
    assert iadbe("serve", "--data", "x=nowhere").code == 1
    assert "there is no folder" in iadbe("serve", "--data", "x=nowhere", "--data", f"y={elsewhere}").err  # all count


def test_data_roots_have_names(elsewhere):
    (elsewhere / "Parts").mkdir()
    found = serve._data_roots(f"a={elsewhere / 'Parts'}, {elsewhere / 'Parts'}")
    assert found == {"a": elsewhere / "Parts", "parts": elsewhere / "Parts"}
    with pytest.raises(BadConfig):
        serve._data_roots("nowhere")


def test_a_missing_extra_is_one_sentence(iadbe, monkeypatch):
    load = builtins.__import__

    def without(name, *more):
        if name.split(".")[0] == "uvicorn":
            raise ImportError(name, name=name)
        return load(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    output = iadbe("serve")
    assert output.code == 1
    assert "pip install 'iadbe[web]'" in output.err
