from dataclasses import FrozenInstanceError, fields, replace

import pytest

from iadbe import types
from iadbe.types import Options


def test_values_that_packages_exchange_cannot_be_changed():
    sample = types.Sample("a", "c", "train", "good", "a.png")
    with pytest.raises(FrozenInstanceError):
        sample.id = "b"


def test_only_good_is_good():
    assert not types.Sample("a", "c", "test", "good", "a.png").is_anomaly
    assert types.Sample("a", "c", "test", "scratch", "a.png").is_anomaly


def test_an_options_field_never_decides_a_number():
    """What is in RunSpec is identity, what is in Options is not: no name may stand in both."""
    assert not {f.name for f in fields(types.RunSpec)} & {f.name for f in fields(types.Options)}


def test_kept_images_may_be_asked_for_by_their_old_name():
    assert Options(pictures=3).images == 3
    assert replace(Options(pictures=3), device="cpu").images == 3


def test_a_sample_is_a_group_of_its_own_unless_it_has_one():
    assert types.Sample("a", "c", "train", "good", "a.png").group_id == "a"
    assert types.Sample("a", "c", "train", "good", "a.png", group="lot 3").group_id == "lot 3"
