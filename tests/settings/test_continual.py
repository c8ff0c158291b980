from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.continual import Continual

TOY = Toy()
INDEX = Index(TOY.samples())


def steps(setting, categories=TOY.categories, seed=0):
    (task,) = setting.tasks(categories, TOY.categories)
    return setting.steps(task, INDEX, Random(seed))


def test_each_step_shows_one_category_and_tests_all_seen_so_far():
    found = steps(Continual())
    assert len(found) == 4
    for number, step in enumerate(found):
        assert {e.sample for e in step.shards[0]} == set(INDEX.train(TOY.categories[number]))
        assert list(step.tests) == list(TOY.categories[: number + 1])
        assert all(test == INDEX.test(name) for name, test in step.tests.items())


def test_the_order_may_be_given_or_drawn():
    assert list(steps(Continual(order=("washer", "board")))[-1].tests) == ["washer", "board"]
    drawn = {tuple(steps(Continual(shuffle=True), seed=seed)[-1].tests) for seed in range(10)}
    assert len(drawn) > 1
    assert {tuple(sorted(d)) for d in drawn} == {TOY.categories}


def test_only_the_wanted_categories():
    assert list(steps(Continual(), ["metal", "board"])[-1].tests) == ["metal", "board"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Continual(order=("a", "b"), shuffle=True), "exclude one another"),
        (lambda: Continual(order=("a", "a")), "twice"),
        (lambda: steps(Continual(order=("metal", "bord"))), "Did you mean board"),
        (lambda: steps(Continual(), ["metal"]), "at least two categories"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
    with pytest.raises(BadConfig, match=sentence):
        make()
