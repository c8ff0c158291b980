from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.cross_category import CrossCategory

TOY = Toy()
INDEX = Index(TOY.samples())


def test_one_is_learnt_and_all_are_tested_its_own_first():
    (step,) = CrossCategory().steps("metal", INDEX, Random(0))
    assert [e.sample for e in step.shards[0]] == list(INDEX.train("metal"))
    assert list(step.tests) == ["metal", "board", "fabric", "washer"]
    assert all(test == INDEX.test(name) for name, test in step.tests.items())


def test_one_category_alone_is_not_crossed():
    with pytest.raises(BadConfig, match="there are none"):
        CrossCategory().steps("metal", Index(INDEX.train("metal")), Random(0))
