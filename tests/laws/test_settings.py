"""Laws that every setting keeps, whatever its name."""

from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.registry import card, load, names
from iadbe.types import Told

TOY = Toy()
INDEX = Index(TOY.samples())


@pytest.fixture(params=names("settings"))
def setting(request):
    return load("settings", request.param)()


def layouts(setting, seed=0):
    return [(task, setting.steps(task, INDEX, Random(seed))) for task in setting.tasks(TOY.categories)]


def test_no_training_sample_is_tested(setting):
    for _, steps in layouts(setting):
        shown = {e.sample.id for s in steps for shard in s.shards for e in shard}
        tested = {x.id for s in steps for test in s.tests.values() for x in test}
        assert not shown & tested


def test_every_test_has_both_classes(setting):
    for _, steps in layouts(setting):
        for step in steps:
            for test in step.tests.values():
                assert {x.is_anomaly for x in test} == {True, False}


def test_same_seed_same_layout_and_other_seed_no_error(setting):
    assert layouts(setting, 3) == layouts(setting, 3)
    layouts(setting, 4)


def test_shards_are_disjoint(setting):
    for _, steps in layouts(setting):
        for step in steps:
            ids = [e.sample.id for shard in step.shards for e in shard]
            assert len(ids) == len(set(ids))


def test_told_is_true(setting):
    """Only the noisy setting may lie."""
    if type(setting).__name__ == "Noisy":
        pytest.skip("to be told wrongly is what this setting is about")
    for _, steps in layouts(setting):
        for step in steps:
            for shard in step.shards:
                assert all((e.told is not Told.NORMAL) == e.sample.is_anomaly for e in shard)


def test_the_index_is_left_as_it_was(setting):
    before = INDEX.samples
    layouts(setting)
    assert INDEX.samples == before


@pytest.mark.parametrize("name", names("settings"))
def test_the_card_tells_what_the_class_says(name):
    kind = load("settings", name)
    assert card("settings", name).get("demands") == kind.demands
    assert card("settings", name).summary.endswith(".")
