"""The hours of a model in its SQLite file."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest

from iadbe.errors import BadData
from iadbe.monitoring.history import FILE, History, hour_of


def _add(history, hour="2026-05-01T13", source="predict", counts=(1, 2), total=5.0, **verdicts):
    history.add("key", hour, source, {"score": counts}, {"score": total}, verdicts or {"good": 3})


def test_hours_add_up(tmp_path):
    history = History(tmp_path / FILE)
    _add(history)
    _add(history, source="watch", counts=(4, 0), total=1.0, good=3, reject=1)
    _add(history, good=2, look=1)
    _add(history, hour="2026-05-01T12")
    before, after = history.hours("key")
    assert (before.hour, after.hour) == ("2026-05-01T12", "2026-05-01T13")
    assert after.counts["score"].tolist() == [6, 4]
    assert after.means["score"] == pytest.approx(11 / 10)
    assert after.verdicts == {"good": 8, "look": 1, "reject": 1}
    assert after.images == 10
    (watched,) = history.hours("key", "watch")
    assert watched.counts["score"].tolist() == [4, 0]
    assert history.hours("another calibration") == []


def test_nothing_is_there_before(tmp_path):
    assert History(tmp_path / FILE).hours("key") == []
    assert not (tmp_path / FILE).exists()


def test_hours_are_utc():
    time = datetime(2026, 5, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert hour_of(time) == "2026-04-30T23"
    assert hour_of(time.astimezone(UTC)) == "2026-04-30T23"


def test_several_writers_lose_nothing(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _add(History(tmp_path / FILE)), range(30)))
    (hour,) = History(tmp_path / FILE).hours("key")
    assert hour.images == 90
    assert hour.counts["score"].tolist() == [30, 60]


def test_a_damaged_file_is_one_sentence(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be taken for one" * 20)
    with pytest.raises(BadData, match="Remove it"):
        History(tmp_path / FILE).hours("key")
    with pytest.raises(BadData, match="Remove it"):
        _add(History(tmp_path / FILE))


def test_what_does_not_fit_is_not_kept_in_part(tmp_path):
    history = History(tmp_path / FILE)
    _add(history)
    with pytest.raises(BadData):
        history.add("key", "2026-05-01T13", "predict", {"brightness": [1], "score": [1]}, {"brightness": 1.0}, {})
    (hour,) = history.hours("key")
    assert set(hour.counts) == {"score"}


def test_reading_waits_for_no_writer(tmp_path):
    history = History(tmp_path / FILE)
    _add(history)
    with closing(sqlite3.connect(tmp_path / FILE)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert len(history.hours("key")) == 1
