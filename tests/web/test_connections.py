import contextlib
import logging
import socket
import threading
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from iadbe.web.connections import ConnectionLimits, RepeatFilter, connection_limit, protocol

app = FastAPI()
LIMITS = ConnectionLimits(most=20, header_seconds=0.6, body_seconds=0.6, body_bytes=1000, response_seconds=0.6)


@app.get("/")
def start() -> str:
    return "here"


@app.get("/slow")
def slow() -> str:
    time.sleep(1.5)
    return "done"


@app.post("/body")
async def body(request: Request) -> int:
    return len(await request.body())


@app.get("/large")
def large() -> StreamingResponse:
    return StreamingResponse(b"x" * 100_000 for _ in range(10_000))


@contextlib.contextmanager
def serving(limits):
    config = uvicorn.Config(app, port=0, log_level="critical", http=protocol(limits))
    server, opened = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield opened.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        opened.close()


@pytest.fixture(scope="module")
def port():
    with serving(LIMITS) as port:
        yield port


def connect(port):
    found = socket.create_connection(("127.0.0.1", port), timeout=10)
    found.settimeout(10)
    return found


def ask(port, text=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
    with connect(port) as connection:
        connection.sendall(text)
        return read(connection)


def read(connection):
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            found += piece
    return found


def is_closed(connection):
    """Wait until the server closes a connection; a server that does not makes the socket's time-out an error."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            pass
    return True


def test_an_ordinary_request(port):
    assert b'"here"' in ask(port)


def test_slow_headers_are_closed_even_if_bytes_arrive(port):
    with connect(port) as silent, connect(port) as slow_one:
        slow_one.sendall(b"GET / HT")
        assert is_closed(silent)
        sent = 0
        with contextlib.suppress(ConnectionError):  # long before the hundred seconds that all bytes would take
            while sent < 1000:
                slow_one.sendall(b"T")
                sent += 1
                time.sleep(0.1)
        assert sent < 1000


def test_a_slow_body_is_closed_and_a_steady_one_is_not(port):
    head = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n"
    with connect(port) as connection:
        connection.sendall(head + b"x")
        began = time.monotonic()
        assert is_closed(connection)
        assert time.monotonic() - began > 0.3
    with connect(port) as connection:
        connection.sendall(head)
        for _ in range(20):
            time.sleep(0.1)
            connection.sendall(b"x" * 5000)
        assert read(connection).endswith(b"100000")


def test_a_request_that_takes_long_is_not_closed(port):
    assert b'"done"' in ask(port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def test_a_client_that_does_not_read_is_closed(port):
    with connect(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(3)
        assert len(read(connection)) < 500_000_000


def test_a_kept_connection_can_be_used_again(port):
    with connect(port) as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found = b""
            while not found.endswith(b'"here"'):
                found += connection.recv(65536)
            time.sleep(0.4)


def test_waiting_connections_make_room():
    with serving(ConnectionLimits(most=20, header_seconds=60)) as port, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(60)]
        for _ in range(5):
            assert b'"here"' in ask(port)  # it waits for ten seconds, and headers are waited for for a minute
        assert read(held[0]) == b""  # the oldest was closed first


def test_busy_connections_are_kept_and_new_ones_get_503():
    with serving(ConnectionLimits(most=3)) as port, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(port)) for _ in range(3)]
        for connection in busy:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        assert ask(port).startswith(b"HTTP/1.1 503")
        assert all(b'"done"' in read(c) for c in busy)


def test_the_limit_is_below_the_descriptor_limit():
    resource = pytest.importorskip("resource")
    assert 16 <= connection_limit() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def test_the_same_message_is_logged_once():
    logger = logging.Logger("x")
    records = []
    logger.addFilter(RepeatFilter())
    logger.addHandler(logging.Handler())
    logger.handlers[0].emit = records.append
    for _ in range(1000):
        logger.warning("socket.accept() out of system resource")
        logger.warning("limit of %d", 5)
    assert len(records) == 2
