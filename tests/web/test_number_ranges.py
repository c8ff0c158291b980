import math

import pytest

from iadbe.errors import BadConfig
from iadbe.registry import card, names
from iadbe.web.number_ranges import (
    MAX_DEPTH,
    check_number,
    check_parameter,
    check_size,
    range_of,
    whole_number,
)


def nested(depth):
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    "value",
    [nested(50), nested(MAX_DEPTH + 2), list(range(2000)), {"a": "x" * 1000}, {"x" * 1000: 1}, 10**4000, [2**70]],
)
def test_sizes_are_limited(value):
    with pytest.raises(BadConfig):
        check_size("the grid", value)


def test_usual_sizes_pass():
    check_size("the grid", {"detectors": [{"name": "padim", "sweep": {"dims": [50, 100]}}], "seeds": [0, 1]})


@pytest.mark.parametrize(
    ("registry_name", "name", "key", "value"),
    [
        ("datasets", "toy", "count", 10**9),
        ("datasets", "toy", "count", "1000000000"),
        ("datasets", "toy", "count", 0),
        ("datasets", "toy", "count", [5, 10**9]),
        ("detectors", "padim", "dims", 2**40),
        ("detectors", "padim", "layers", "1,99999999"),
        ("detectors", "padim", "sigma", math.inf),
        ("detectors", "padim", "sigma", "nan"),
        ("detectors", "padim", "sigma", "1e300"),
        ("settings", "federated", "rounds", 10**7),
        ("settings", "few_shot", "k", 5000),
        ("datasets", "folder", "seed", -1),
        ("datasets", "folder", "seed", 2**32),
    ],
)
def test_numbers_out_of_range(registry_name, name, key, value):
    with pytest.raises(BadConfig, match=rf"{name}\.{key}"):
        check_parameter(card(registry_name, name), key, value)


@pytest.mark.parametrize("registry_name", ["detectors", "datasets", "settings"])
def test_every_default_is_in_range(registry_name):
    for name in names(registry_name):
        for parameter in card(registry_name, name).parameters:
            check_parameter(card(registry_name, name), parameter.name, parameter.default)


@pytest.mark.parametrize("registry_name", ["detectors", "datasets", "settings"])
def test_ranges_name_parameters(registry_name):
    for name in names(registry_name):
        found = card(registry_name, name)
        assert set(found.get("ranges") or {}) <= {p.name for p in found.parameters}
        assert all(low < high for low, high in (found.get("ranges") or {}).values())


def test_range_of_the_card_and_in_general():
    assert range_of(card("datasets", "toy"), "count") == (1, 10_000)
    assert range_of(card("detectors", "padim"), "dims") == (-1_000_000, 1_000_000)


def test_the_message_names_the_range():
    with pytest.raises(BadConfig, match=r"^x takes a number from 0 to 10, not 11\.$"):
        check_number("x", 11, 0, 10)
    with pytest.raises(BadConfig, match="a number this large"):
        check_number("x", 10**400, 0, 10)


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("0", 0), ("²", None), ("", None), ("-1", None), ("1e3", None), ("٣", None)]
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number
    assert whole_number("9" * 5000) is None
