import pytest

from iadbe.errors import BadConfig
from iadbe.web.rules import Rules, is_local, rules_for


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(host, local):
    assert is_local(host) == local


def test_a_server_that_others_reach_always_has_a_token():
    assert rules_for("127.0.0.1").token == ""
    made = rules_for("0.0.0.0"), rules_for("0.0.0.0")
    assert len(made[0].token) >= 40
    assert made[0].token != made[1].token
    assert rules_for("192.168.0.7", "x" * 16).token == "x" * 16
    assert not rules_for("127.0.0.1").open
    assert made[0].open


def test_a_token_that_can_be_guessed_is_refused():
    with pytest.raises(BadConfig, match="at least 16"):
        rules_for("127.0.0.1", "secret")


def test_names_and_limits():
    rules = rules_for("127.0.0.1", names=("Bench.Example",), upload=7)
    assert "bench.example" in rules.hosts
    assert rules.upload == 7
    assert Rules(image=2**30, images=64).predict_body == 256 * 2**20
