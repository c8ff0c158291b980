"""What tests of other tools' detectors share: they have no network, and leave nothing in the working folder."""

import socket

import pytest
import torch

from iadbe import registry
from iadbe.parameters import complete
from iadbe.registry import card, load


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty working folder, in which nothing may be left, no network, and no file that is trusted."""

    def refused(*arguments, **options):
        raise OSError("the test has no network")

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(registry, "_trusted", set())
    yield
    assert list((tmp_path / "work").iterdir()) == []


def make(name, params):
    """Return the detector with these parameters and random weights that are the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load("detectors", name)(**complete(card("detectors", name), params))
