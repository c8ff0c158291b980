import http.client
import threading
import time

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from http_client import opened
from iadbe.datasets.toy import Toy
from iadbe.results.comparison import compare
from iadbe.web.cancellation import Cancelled, stop_if
from iadbe.web.data import check_dataset
from iadbe.web.problems import RequestRefused
from iadbe.web.statistics import interval_entries

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


def test_work_stops_where_its_client_has_gone():
    gone = threading.Event()
    stop_if(gone)
    stop_if(None)
    gone.set()
    with pytest.raises(RequestRefused):
        stop_if(gone)


def test_intervals_and_data_checks_stop(filled, monkeypatch):
    gone = threading.Event()
    gone.set()
    (comparison,) = compare([r for r in filled if r.spec.dataset == "mvtec_ad" and not r.error])
    with pytest.raises(RequestRefused):
        interval_entries(comparison, "image_auroc", gone)
    with opened(filled) as client:
        read = []
        monkeypatch.setattr(Toy, "image", lambda self, sample: read.append(sample) or np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(RequestRefused):
            check_dataset(client.server, "toy", gone)
        assert len(read) < 50
        assert client.server.check_lock.acquire(blocking=False)
