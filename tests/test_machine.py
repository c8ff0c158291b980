from pathlib import Path

import numpy as np
import pytest

from iadbe import machine
from iadbe.errors import BadConfig
from iadbe.types import Options


def test_a_device_that_is_not_there_is_one_sentence():
    assert machine.device("cpu").type == "cpu"
    with pytest.raises(BadConfig, match="no device 'gpu'"):
        machine.device("gpu")
    with pytest.raises(BadConfig, match="not on this machine"):
        machine.device("cuda:99")


def test_the_cache_goes_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path))
    assert machine.feature_store(Options()).root == tmp_path / "features"
    assert machine.feature_store(Options(features="off")) is None
    assert machine.feature_store(Options(features="elsewhere")).root == Path("elsewhere")


def test_peak_memory_notices_a_large_array():
    before = machine.peak_memory()
    np.ones(before // 8 + 40_000_000).sum()
    assert machine.peak_memory() > before + 200_000_000


def test_the_environment_names_what_decides_numbers_and_speed():
    found = machine.environment(Options(command="iadbe train"), "cpu")
    assert found["packages"]["torch"]
    assert found["processor"]
    assert found["command"] == "iadbe train"
    assert machine.versions(("numpy", "no-such-package-anywhere")).keys() == {"numpy"}
