from random import Random

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.settings.vanilla import Vanilla

INDEX = Index(Toy().samples())


def test_all_good_training_images_and_the_whole_test_split():
    (step,) = Vanilla().steps("metal", INDEX, Random(0))
    assert [e.sample for e in step.shards[0]] == list(INDEX.train("metal"))
    assert step.tests == {"metal": INDEX.test("metal")}
