import numpy as np
import pytest

from iadbe import environment
from iadbe.errors import BadConfig, Missing
from iadbe.types import Options


def test_a_device_that_is_not_there_is_one_sentence():
    assert environment.device("cpu").type == "cpu"
    with pytest.raises(BadConfig, match="no device 'gpu'"):
        environment.device("gpu")
    with pytest.raises(Missing, match="not on this machine"):
        environment.device("cuda:99")


def test_peak_memory_notices_a_large_array():
    before = environment.peak_memory()
    np.ones(before // 8 + 40_000_000).sum()
    assert environment.peak_memory() > before + 200_000_000


def test_the_environment_names_what_decides_numbers_and_speed():
    found = environment.environment(Options(command="iadbe train"), "cpu")
    assert found["packages"]["torch"]
    assert found["processor"]
    assert found["command"] == "iadbe train"
    assert environment.versions(("numpy", "no-such-package-anywhere")).keys() == {"numpy"}
