"""The journal of what has been judged."""

import sqlite3

import pytest

from iadbe.errors import BadConfig
from iadbe.watching.journal import FILE, Journal


@pytest.fixture
def journal(tmp_path):
    found = Journal(tmp_path)
    yield found
    found.close()


def test_an_image_is_recorded_written_and_finished(journal):
    assert not journal.knows("a")
    entry = journal.record("a", "good", ['{"x": 1}'], "good/a.png", [])
    assert journal.knows("a")
    assert journal.unfinished() == [entry]
    journal.wrote(entry, 9)
    assert journal.unfinished()[0].log_end == journal.log_end() == 9
    journal.finish(entry)
    assert journal.unfinished() == []
    assert journal.counts() == {"good": 1}
    with pytest.raises(sqlite3.IntegrityError):
        journal.record("a", "good", [], "", [])
    assert journal.counts() == {"good": 1}


def test_a_sink_gets_each_verdict_in_order_until_it_takes_it(journal):
    for key in "ab":
        journal.record(key, "reject", [f'"{key}"'], "", ["webhook", "mqtt"])
    first, second = journal.due("webhook", 10.0)
    assert (first.line, second.line) == ('"a"', '"b"')
    journal.postpone(first, 20.0)
    assert journal.due("webhook", 10.0) == []  # nothing overtakes it
    assert [one.attempts for one in journal.due("webhook", 20.0)] == [1, 0]
    journal.delivered(first)
    assert [one.line for one in journal.due("webhook", 10.0)] == ['"b"']
    assert (journal.pending("webhook"), journal.pending("mqtt"), journal.pending()) == (1, 2, 3)


def test_it_is_there_again_and_belongs_to_one_process(tmp_path, journal):
    journal.record("a", "good", ["1"], "", [])
    with pytest.raises(BadConfig, match="another process writes verdicts"):
        Journal(tmp_path)
    journal.close()
    again = Journal(tmp_path)
    assert again.knows("a")
    again.close()


def test_another_file_is_no_journal(tmp_path):
    (tmp_path / FILE).write_bytes(b"something else" * 100)
    with pytest.raises(BadConfig, match="is no journal"):
        Journal(tmp_path)
    (tmp_path / "b").mkdir()
    Journal(tmp_path / "b").close()
    with sqlite3.connect(tmp_path / "b" / FILE) as connection:
        connection.execute("UPDATE about SET schema = 99")
    connection.close()
    with pytest.raises(BadConfig, match="another version"):
        Journal(tmp_path / "b")
