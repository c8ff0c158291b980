"""What is recorded is found again, in order, by one process at a time."""

import sqlite3

import pytest

from iadbe.errors import BadConfig, BadData
from iadbe.watching.journal import FILE, FileState, Journal

STATE = FileState("a/x.png", 10, 123)


def test_entries_are_kept(tmp_path):
    journal = Journal(tmp_path)
    first = journal.add(STATE, "good", [{"score": 1.5}], "good/a/x.png")
    second = journal.add(STATE._replace(size=11), "reject", [], "")
    assert (first.moved, second.moved) == (False, True), "what stays needs no move"
    journal.close()
    journal = Journal(tmp_path)
    assert list(journal.after(0)) == [first, second]
    assert list(journal.after(first.number)) == [second]
    assert journal.last(STATE) == first
    assert journal.last(STATE._replace(modified=0)) is None
    assert journal.unmoved() == [first]
    journal.mark_moved(first.number)
    assert journal.unmoved() == []
    assert journal.is_target("good/a/x.png")
    assert not journal.is_target("good/b.png")
    assert journal.counts() == {"good": 1, "reject": 1}


def test_the_last_entry_of_a_state_counts(tmp_path):
    journal = Journal(tmp_path)
    journal.add(STATE, "good", [], "good/a/x.png")
    again = journal.add(STATE, "look", [], "look/a/x.png")
    assert journal.last(STATE) == again


def test_one_process_has_it(tmp_path):
    Journal(tmp_path)
    with pytest.raises(BadConfig, match="another `iadbe watch` may write to it"):
        Journal(tmp_path)


def test_what_is_no_journal_is_one_sentence(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be one" * 50)
    with pytest.raises(BadData, match="is no journal"):
        Journal(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(BadConfig, match="another version"):
        Journal(tmp_path)
