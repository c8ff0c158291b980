import os
import time

import pytest

from iadbe.web.policy import Policy
from iadbe.web.sessions import SESSION_SECONDS, Sessions

POLICY = Policy(token="a token that nobody can guess")


@pytest.fixture
def sessions(tmp_path):
    return Sessions(POLICY, tmp_path / "revoked.json")


def test_cookies_cannot_be_forged(sessions, tmp_path):
    good = sessions.create()
    assert sessions.is_valid(good)
    expires, session, signature = good.split(".")
    other = Sessions(Policy(token="another token of a server"), tmp_path / "revoked.json")
    for bad in (
        "",
        ".",
        "..",
        good[:-1],
        f"{int(expires) + 1}.{session}.{signature}",
        f"{expires}.{session}.",
        f"{expires}.{'0' * 32}.{signature}",
        f"²{expires}.{session}.{signature}",
        "\udcff.\udcff.\udcff",
        other.create(),
    ):
        assert not sessions.is_valid(bad)


def test_cookies_expire(sessions):
    assert not sessions.is_valid(sessions.create(time.time() - SESSION_SECONDS - 1))


def test_without_a_token_there_are_no_sessions(tmp_path):
    sessions = Sessions(Policy(), tmp_path / "revoked.json")
    assert not sessions.is_valid(sessions.create())


def test_a_revoked_session_ends_here_and_on_later_servers(sessions, tmp_path):
    ended, other = sessions.create(), sessions.create()
    running = Sessions(POLICY, tmp_path / "revoked.json")
    assert running.is_valid(ended)
    sessions.revoke(ended)
    for each in (sessions, running, Sessions(POLICY, tmp_path / "revoked.json")):
        assert not each.is_valid(ended)
        assert each.is_valid(other)
    assert os.listdir(tmp_path) == ["revoked.json"]


def test_expired_ids_are_forgotten(sessions, tmp_path, monkeypatch):
    sessions.revoke(sessions.create(time.time() - SESSION_SECONDS + 0.2))
    time.sleep(0.3)
    sessions.revoke(sessions.create())
    assert len(sessions._revoked) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"a": null}', '{"a": []}', "\0", "7"])
def test_a_damaged_file_of_ended_sessions_stops_nobody(sessions, tmp_path, content):
    (tmp_path / "revoked.json").write_text(content)
    cookie, other = sessions.create(), sessions.create()
    assert sessions.is_valid(cookie)
    sessions.revoke(cookie)
    assert not Sessions(POLICY, tmp_path / "revoked.json").is_valid(cookie)
    assert Sessions(POLICY, tmp_path / "revoked.json").is_valid(other)


def test_forged_cookies_are_not_stored(sessions, tmp_path):
    sessions.revoke("1.2.3")
    assert os.listdir(tmp_path) == []


def test_on_a_read_only_store_a_session_ends_too(tmp_path):
    sessions = Sessions(POLICY, tmp_path / "missing" / "revoked.json")
    cookie = sessions.create()
    sessions.revoke(cookie)
    assert not sessions.is_valid(cookie)
