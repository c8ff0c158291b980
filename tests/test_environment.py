import pytest
import torch

from iadbe import environment
from iadbe.errors import BadConfig, Missing
from iadbe.types import Options


def test_a_device_that_is_not_there_is_one_sentence():
    assert environment.device("cpu").type == "cpu"
    with pytest.raises(BadConfig, match="no device 'gpu'"):
        environment.device("gpu")
    with pytest.raises(Missing, match="not on this machine"):
        environment.device("cuda:99")


def test_apples_gpu_is_taken_by_name_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(Missing, match="mps is not on this machine"):
        environment.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert environment.device("mps").type == "mps"
    assert environment.environment(Options(), "mps")["device"] == "mps"


def test_the_environment_names_what_decides_numbers_and_speed():
    found = environment.environment(Options(command="iadbe train"), "cpu")
    assert found["packages"]["torch"]
    assert found["processor"]
    assert found["command"] == "iadbe train"
    assert environment.versions(("numpy", "no-such-package-anywhere")).keys() == {"numpy"}
