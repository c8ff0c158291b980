from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.transfer import Transfer
from iadbe.types import Sample

TOY = Toy()
INDEX = Index(TOY.samples())


def test_first_the_source_then_k_of_the_target():
    first, second = Transfer(k=3).steps("board to metal", INDEX, Random(0))
    assert [e.sample for e in first.shards[0]] == list(INDEX.train("board"))
    assert len(second.shards[0]) == 3
    assert {e.sample for e in second.shards[0]} <= set(INDEX.train("metal"))


def test_the_source_is_tested_again_after_the_target_was_learnt():
    """open-iad said that both are tested, and tested the target alone."""
    first, second = Transfer().steps("board to metal", INDEX, Random(0))
    assert first.tests == {"board": INDEX.test("board")}
    assert second.tests == {"board": INDEX.test("board"), "metal": INDEX.test("metal")}


@pytest.mark.parametrize(
    ("params", "tasks"),
    [
        ({}, ["board to fabric", "board to metal", "board to washer"]),
        ({"source": "metal"}, ["metal to board", "metal to fabric", "metal to washer"]),
        ({"target": "board"}, ["fabric to board"]),
        ({"source": "metal", "target": "board"}, ["metal to board"]),
    ],
)
def test_every_other_category_is_a_target_unless_one_is_named(params, tasks):
    assert list(Transfer(**params).tasks(TOY.categories)) == tasks


def test_a_name_may_hold_the_word_between_the_two():
    names = ("a to b", "c")
    samples = [Sample(f"{n}{i}", n, s, "good", f"{n}{i}{s}") for n in names for s in ("train", "test") for i in (0, 1)]
    (task, *_) = Transfer(k=1).tasks(names)
    assert list(Transfer(k=1).steps(task, Index(samples), Random(0))[1].tests) == ["a to b", "c"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Transfer().tasks(["metal"]), "needs two categories"),
        (lambda: Transfer(k=500).steps("board to metal", INDEX, Random(0)), "metal has 40 good training images"),
        (lambda: Transfer().steps("metal to metal", INDEX, Random(0)), "are both metal"),
        (lambda: Transfer().steps("metal to bord", INDEX, Random(0)), "Did you mean board"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
    with pytest.raises(BadConfig, match=sentence):
        make()
