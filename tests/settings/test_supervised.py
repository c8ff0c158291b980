from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.supervised import Supervised
from iadbe.types import TrainingLabel

INDEX = Index(Toy().samples())


def test_a_share_of_each_kind_is_labelled_and_the_rest_is_tested():
    (step,) = Supervised(share=0.34).steps("metal", INDEX, Random(0))
    labelled = [e.sample for e in step.shards[0] if e.label is TrainingLabel.MASKED]
    assert set(Counter(s.defect for s in labelled).values()) == {2}
    assert len({s.defect for s in labelled}) == 4
    assert set(labelled) | set(step.tests["metal"]) == set(INDEX.test("metal"))
    assert len(labelled) + len(step.tests["metal"]) == len(INDEX.test("metal"))


def test_defects_of_the_training_split_are_taken_where_there_are_any():
    defects = INDEX.anomalies("metal")
    moved = Index([replace(s, split="train") if s in defects[::2] else s for s in INDEX.samples])
    (step,) = Supervised().steps("metal", moved, Random(0))
    assert [e.sample.id for e in step.shards[0] if e.label is not TrainingLabel.NORMAL] == [s.id for s in defects[::2]]
    assert step.tests["metal"] == moved.test("metal")


def test_of_every_kind_one_is_left_to_be_tested():
    (step,) = Supervised(share=0.99).steps("metal", INDEX, Random(0))
    assert set(Counter(s.defect for s in step.tests["metal"] if s.is_anomaly).values()) == {1}


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(BadConfig, match="above 0 and below 1"):
        Supervised(share=1)
    single = Index([*INDEX.train("metal"), *INDEX.anomalies("metal")[:1]])
    with pytest.raises(BadConfig, match="too few defective images"):
        Supervised().steps("metal", single, Random(0))
