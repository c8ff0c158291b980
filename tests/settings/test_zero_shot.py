from random import Random

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.settings.zero_shot import ZeroShot
from iadbe.types import TrainingLabel

INDEX = Index(Toy().samples())


def test_nothing_is_shown():
    (step,) = ZeroShot().steps("metal", INDEX, Random(0))
    assert step.shards == ()
    assert step.tests == {"metal": INDEX.test("metal")}
    assert ZeroShot().demanded() == {"zero-shot"}


def test_transductive_shows_the_test_images_and_says_nothing_of_their_labels():
    (step,) = ZeroShot(transductive=True).steps("metal", INDEX, Random(0))
    assert [e.sample for e in step.shards[0]] == list(step.tests["metal"]) == list(INDEX.test("metal"))
    assert {e.label for e in step.shards[0]} == {TrainingLabel.NORMAL}
    assert ZeroShot(transductive=True).demanded() == {"transductive"}
