from collections import Counter
from random import Random

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.settings.multi_class import MultiClass

TOY = Toy()
INDEX = Index(TOY.samples())


def test_one_shard_of_all_categories_and_a_test_of_each():
    (task,) = MultiClass().tasks(TOY.categories)
    assert task == "all"
    (step,) = MultiClass().steps(task, INDEX, Random(0))
    assert Counter(e.sample.category for e in step.shards[0]) == dict.fromkeys(TOY.categories, 40)
    assert step.tests == {c: INDEX.test(c) for c in TOY.categories}


def test_some_of_the_categories():
    (task,) = MultiClass().tasks(["metal", "board"], TOY.categories)
    (step,) = MultiClass().steps(task, INDEX, Random(0))
    assert list(step.tests) == ["metal", "board"]
    assert {e.sample.category for e in step.shards[0]} == {"metal", "board"}
