"""Verdicts are sent until they are taken."""

import sqlite3
import time

import pytest

from iadbe.watching import delivery
from iadbe.watching.delivery import Delivery, Sink
from iadbe.watching.journal import Journal


class Moody(Sink):
    """Refuses some attempts."""

    name = "moody"

    def __init__(self, refusals=0):
        self.refusals, self.taken, self.is_closed = refusals, [], False

    def send(self, line):
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("away\nfor lunch")
        self.taken.append(line)

    def close(self):
        self.is_closed = True


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(delivery, "POLL_SECONDS", 0.01)
    found = Journal(tmp_path)
    for key in "abc":
        found.record(key, "good", [key], "", ["moody"])
    yield found
    found.close()


def test_all_arrive_once_and_in_order_where_a_sink_refuses_some(journal):
    sink = Moody(refusals=3)
    thread = Delivery(sink, journal)
    thread.start()
    deadline = time.monotonic() + 20
    while journal.pending() and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop(5)
    assert sink.taken == ["a", "b", "c"]
    assert sink.is_closed
    assert thread.problem == ""


def test_what_a_sink_does_not_take_stays_in_the_journal(journal):
    thread = Delivery(Moody(refusals=10**6), journal)
    thread.start()
    while not thread.problem:
        time.sleep(0.01)
    thread.stop(5)
    assert thread.problem == "ConnectionError: away for lunch"
    assert journal.pending("moody") == 3


def test_a_full_disk_under_the_journal_does_not_end_the_thread(journal, monkeypatch):
    refused = [True] * 3

    def delivered(self, one, own=Journal.delivered):
        if refused:
            refused.pop()
            raise sqlite3.OperationalError("database or disk is full")
        own(self, one)

    monkeypatch.setattr(Journal, "delivered", delivered)
    sink = Moody()
    thread = Delivery(sink, journal)
    thread.start()
    deadline = time.monotonic() + 20
    while journal.pending() and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop(5)
    assert sink.taken == ["a", "a", "a", "a", "b", "c"]  # again, rather than never
    assert thread.problem == ""
