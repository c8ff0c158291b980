from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.few_shot import FewShot

INDEX = Index(Toy().samples())


def test_k_good_pictures_that_the_seed_decides():
    (step,) = FewShot(k=3).steps("metal", INDEX, Random(0))
    assert len(step.shards[0]) == 3
    assert {e.sample for e in step.shards[0]} <= set(INDEX.train("metal"))
    assert step.shards != FewShot(k=3).steps("metal", INDEX, Random(1))[0].shards


@pytest.mark.parametrize("k", [0, 10_000])
def test_a_k_that_cannot_be_is_one_sentence(k):
    with pytest.raises(BadConfig, match="good training pictures"):
        FewShot(k=k).steps("metal", INDEX, Random(0))
