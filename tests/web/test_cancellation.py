import http.client
import threading
import time

import uvicorn
from fastapi import FastAPI

from iadbe.web.cancellation import Cancelled

app = FastAPI()
seen = []


@app.get("/wait")
def wait(cancelled: Cancelled) -> str:
    seen.append(cancelled.wait(20))
    return "done"


@app.get("/quick")
def quick(cancelled: Cancelled) -> bool:
    return cancelled.is_set()


def test_a_request_learns_that_its_client_has_gone():
    config = uvicorn.Config(app, port=0, log_level="critical")
    server, socket = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", socket.getsockname()[1], timeout=10)
        connection.request("GET", "/quick")
        assert connection.getresponse().read() == b"false"
        connection.request("GET", "/wait")
        time.sleep(0.3)
        connection.close()
        deadline = time.monotonic() + 10
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seen == [True]
    finally:
        server.should_exit = True
        thread.join()
        socket.close()
