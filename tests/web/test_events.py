import http.client
import json
import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from iadbe.jobs.queue import JobUpdate
from iadbe.running.store import Store
from iadbe.web import events
from iadbe.web.app import build
from iadbe.web.policy import Policy

GRID = {"detectors": ["padim"], "data": ["toy"]}


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A server that really listens, in a thread; ``live.follow(path)`` yields its events."""
    import uvicorn

    monkeypatch.setattr(events, "POLL", 0.05)

    class Live:
        def __init__(self):
            application = build(Store(tmp_path / "runs"), Policy(streams=2))
            self.opened = []
            self.state = application.app.state.server
            self.queue = self.state.queue
            config = uvicorn.Config(application, port=0, log_level="critical", timeout_graceful_shutdown=10)
            self.server = uvicorn.Server(config)
            self.socket = config.bind_socket()
            self.port = self.socket.getsockname()[1]
            self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
            self.thread.start()
            while not self.server.started:
                time.sleep(0.02)

        def open(self, path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            connection.request("GET", path, headers=headers)
            self.opened += [connection, answer := connection.getresponse()]
            return answer

        def stop(self):
            self.state.shutting_down.set()
            self.server.should_exit = True
            self.thread.join()
            for each in (*self.opened, self.socket):
                each.close()

    live = Live()
    yield live
    live.stop()


def follow(answer):
    """Yield (id, kind, data) of a stream until it ends."""
    found = {}
    for raw in answer:
        line = raw.decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if line == "" and "data" in found:
            yield int(found.get("id", 0)), found["event"], json.loads(found["data"])
            found = {}
        elif name in ("id", "event", "data"):
            found[name] = value


def test_a_job_is_streamed_until_it_ends(live):
    job = live.queue.add(GRID)
    answer = live.open(f"/api/v1/events?job={job.id}")
    assert answer.getheader("content-type").startswith("text/event-stream")
    stream = follow(answer)
    assert next(stream)[1:] == (
        "state",
        {"job": job.id, "at": pytest.approx(time.time(), abs=60), "run": "", "state": "queued"},
    )
    taken = live.queue.take("w")
    assert next(stream)[2]["state"] == "running"
    live.queue.beat(taken, [JobUpdate("loss", {"value": 0.5, "n": 1}, "r1")])
    number, kind, body = next(stream)
    assert (kind, body["run"], body["value"]) == ("loss", "r1", 0.5)
    live.queue.end(taken, "done")
    assert [(k, b["state"]) for _, k, b in stream] == [("state", "done")]  # and the stream ends
    rest = live.open(f"/api/v1/events?job={job.id}", **{"Last-Event-ID": str(number)})
    assert [b["state"] for _, _, b in follow(rest)] == ["done"]
    last = live.queue.last_event()
    assert live.open(f"/api/v1/events?job={job.id}", **{"Last-Event-ID": str(last)}).status == 204


def test_the_last_events_of_a_job_are_not_missed(live, monkeypatch):
    """The job ends after its events were read, and before anybody asks whether it is over."""
    job = live.queue.add(GRID)
    taken = live.queue.take("w")
    read, looks = live.queue.events, []

    def slowly(*given):
        found = read(*given)
        looks.append(len(found))
        if not found:
            live.queue.end(taken, "done")
        return found

    monkeypatch.setattr(live.queue, "events", slowly)
    states = [b["state"] for _, _, b in follow(live.open(f"/api/v1/events?job={job.id}"))]
    assert states == ["queued", "running", "done"]


def test_logs_are_streamed(live):
    job = live.queue.add(GRID)
    log = live.state.store.root / ".logs/padim-x.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n")
    stream = follow(live.open(f"/api/v1/events?job={job.id}&logs=true"))
    taken = live.queue.take("w")
    live.queue.beat(
        taken,
        [JobUpdate("started", {"folder": "padim-x"}, "r1"), JobUpdate("started", {"folder": "../../etc/x"}, "r2")],
    )
    logs = (body for _, kind, body in stream if kind == "log")
    assert next(logs)["text"] == "first\n"
    with log.open("a") as file:
        file.write("second\n")
    assert next(logs)["text"] == "second\n"
    with log.open("a") as file:
        file.write("last words\n")
    live.queue.beat(taken, [JobUpdate("finished", {"folder": "padim-x"}, "r1")])
    live.queue.end(taken, "done")
    assert [b["text"] for b in logs] == ["last words\n"]


def test_a_late_client_gets_the_logs_of_running_runs(live):
    job = live.queue.add(GRID)
    logs = live.state.store.root / ".logs"
    logs.mkdir(parents=True)
    for name in ("over", "on"):
        (logs / f"{name}.log").write_text(f"{name}\n")
    taken = live.queue.take("w")
    news = [JobUpdate("started", {"folder": "over"}, "r1"), JobUpdate("finished", {"folder": "over"}, "r1")]
    live.queue.beat(taken, [*news, JobUpdate("started", {"folder": "on"}, "r2")])
    last = live.queue.last_event()
    stream = follow(live.open(f"/api/v1/events?job={job.id}&logs=true&after={last}"))
    live.queue.end(taken, "done")
    answer = [(kind, body.get("text")) for _, kind, body in stream]
    assert [text for kind, text in answer if kind == "log"] == ["on\n"]


def test_states_of_all_jobs_are_streamed_from_now_on(live):
    live.queue.add(GRID)
    stream = follow(live.open("/api/v1/events"))
    time.sleep(0.3)
    job = live.queue.add(GRID)
    assert next(stream)[2]["job"] == job.id


def test_streams_are_counted_and_end_with_the_server(live):
    job = live.queue.add(GRID)
    two = [live.open(f"/api/v1/events?job={job.id}") for _ in range(2)]
    for answer in two:
        next(follow(answer))
    assert live.state.open_streams == 2
    third = live.open("/api/v1/events")
    assert (third.status, third.getheader("content-type")) == (503, "application/problem+json")
    live.state.shutting_down.set()
    live.server.should_exit = True
    for answer in two:
        answer.read()  # to its end: of a stream that is cut off, which happens ten seconds later, this raises
    live.stop()
    assert live.state.open_streams == 0


def test_a_client_that_disconnects_frees_its_stream(live, monkeypatch):
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.1)
    job = live.queue.add(GRID)
    answer = live.open(f"/api/v1/events?job={job.id}")
    next(follow(answer))
    for each in live.opened:
        each.close()
    deadline = time.monotonic() + 20
    while live.state.open_streams and time.monotonic() < deadline:
        time.sleep(0.05)
    assert live.state.open_streams == 0


@pytest.mark.parametrize(("query", "status"), [("job=0123456789ab", 404), ("job=../x", 422), ("after=-1", 422)])
def test_unknown_resources_are_not_found(live, query, status):
    assert live.open(f"/api/v1/events?{query}").status == status


def test_head_of_an_endless_stream_ends(live):
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=20)
    connection.request("HEAD", "/api/v1/events")
    live.opened += [connection, answer := connection.getresponse()]
    assert (answer.status, answer.read()) == (200, b"")
    assert answer.getheader("content-type").startswith("text/event-stream")
    until = time.monotonic() + 10
    while live.state.open_streams and time.monotonic() < until:
        time.sleep(0.02)
    assert live.state.open_streams == 0


def test_a_stream_ends_where_the_database_is_away_and_goes_on_after_the_last_number(live, monkeypatch):
    job = live.queue.add(GRID)
    read = live.queue.events

    def away(name="", after=0, *rest):
        if after:
            raise OperationalError("SELECT 1", {}, Exception("connection refused"))
        return read(name, after, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(live.queue, "events", away)
        ((number, _, body),) = follow(live.open(f"/api/v1/events?job={job.id}"))  # an aborted one would raise
    assert body["state"] == "queued"
    live.queue.stop(job.id)
    rest = live.open(f"/api/v1/events?job={job.id}", **{"Last-Event-ID": str(number)})
    assert [b["state"] for _, _, b in follow(rest)] == ["stopped"]
