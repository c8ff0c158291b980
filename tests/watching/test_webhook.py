"""Verdicts as posts to an address."""

import hashlib
import hmac
import http.server
import threading
import urllib.error
from types import SimpleNamespace

import pytest

from iadbe.errors import BadConfig
from iadbe.watching.webhook import Webhook

LINE = '{"id": "0a", "verdict": "reject", "path": "é.png"}'


@pytest.fixture
def receiver():
    """A web server that keeps what is posted; ``status`` is what it answers."""
    found = SimpleNamespace(posts=[], status=200, headers={})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.posts.append((self.path, dict(self.headers), body))
            self.send_response(found.status)
            for key, value in found.headers.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, *_):
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        found.address = f"http://127.0.0.1:{server.server_port}/verdicts"
        yield found
        server.shutdown()
        thread.join()


def test_a_post_says_which_verdict_it_is_and_who_sends_it(receiver):
    Webhook(receiver.address, "secret").send(LINE)
    ((path, headers, body),) = receiver.posts
    assert path == "/verdicts"
    assert body == LINE.encode()
    assert headers["Idempotency-Key"] == "0a"
    assert headers["Content-Type"] == "application/json"
    expected = hmac.new(b"secret", LINE.encode(), hashlib.sha256).hexdigest()
    assert headers["X-Signature-256"] == f"sha256={expected}"
    Webhook(receiver.address).send(LINE)
    assert "X-Signature-256" not in receiver.posts[1][1]


@pytest.mark.parametrize(("status", "headers"), [(500, {}), (404, {}), (302, {"Location": "/elsewhere"})])
def test_other_answers_mean_that_it_was_not_taken(receiver, status, headers):
    receiver.status, receiver.headers = status, headers
    with pytest.raises(urllib.error.HTTPError):
        Webhook(receiver.address).send(LINE)
    assert len(receiver.posts) == 1  # no redirection is followed


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("line.example/verdicts", "takes an address such as https"),
        ("ftp://line.example", "takes an address such as https"),
        ("http://line.example/verdicts", "begins with https"),
        ("https://user:secret@line.example", "no password in its address"),
    ],
)
def test_addresses_that_are_refused(address, says):
    with pytest.raises(BadConfig, match=says):
        Webhook(address)
