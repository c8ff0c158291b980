import pytest

from iadbe.errors import BadConfig
from iadbe.web.policy import Policy, is_local, policy_for


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
def test_loopback_addresses(host, local):
    assert is_local(host) == local


def test_a_reachable_server_always_has_a_token():
    assert policy_for("127.0.0.1").token == ""
    made = policy_for("0.0.0.0"), policy_for("0.0.0.0")
    assert len(made[0].token) >= 40
    assert made[0].token != made[1].token
    assert policy_for("192.168.0.7", "x" * 16).token == "x" * 16
    assert not policy_for("127.0.0.1").open
    assert made[0].open


def test_a_short_token_is_refused():
    with pytest.raises(BadConfig, match="at least 16"):
        policy_for("127.0.0.1", "secret")


def test_names_and_limits():
    rules = policy_for("127.0.0.1", names=("Bench.Example",), upload=7)
    assert "bench.example" in rules.hosts
    assert rules.upload == 7
    assert Policy(image=2**30, images=64).predict_body == 256 * 2**20
