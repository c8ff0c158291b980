from random import Random

import pytest

from iadbe.data.transforms import without_transform
from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.shifted import STRENGTHS, Shifted, corruption_of

INDEX = Index(Toy().samples())


def test_six_kinds_at_five_strengths_and_the_images_as_they_are():
    (step,) = Shifted().steps("metal", INDEX, Random(0))
    assert len(step.tests) == 31
    assert next(iter(step.tests)) == "metal"
    assert step.tests["metal"] == INDEX.test("metal")
    for test in step.tests.values():
        assert tuple(without_transform(s) for s in test) == INDEX.test("metal")
    assert {s.transform for s in step.tests["metal, jpeg 5"]} == {"jpeg=7"}
    assert not any(e.sample.transform for e in step.shards[0])


def test_all_ids_are_different():
    (step,) = Shifted().steps("metal", INDEX, Random(0))
    ids = [s.id for test in step.tests.values() for s in test]
    assert len(set(ids)) == len(ids) == 31 * len(INDEX.test("metal"))


def test_strengths_rise():
    for kind, values in STRENGTHS.items():
        assert list(values) == sorted(set(values), reverse=kind in ("contrast", "jpeg"))
        assert len(values) == 5


def test_some_kinds_and_strengths():
    (step,) = Shifted(kinds=("blur",), strengths=(3,)).steps("metal", INDEX, Random(0))
    assert list(step.tests) == ["metal", "metal, blur 3"]


def test_the_name_of_a_test_says_its_change():
    (step,) = Shifted().steps("metal", INDEX, Random(0))
    read = {test: corruption_of(test) for test in step.tests}
    assert read.pop("metal") is None
    assert read["metal, blur 3"] == ("metal", "blur", 3)
    assert {found[1:] for found in read.values()} == {(kind, n) for kind in STRENGTHS for n in range(1, 6)}
    assert [corruption_of(odd) for odd in ("a, b", "a, blur", "blur 3", "a, blur x")] == [None] * 4


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"kinds": ("blurr",)}, "Did you mean blur"), ({"strengths": (0,)}, "from 1 to 5"), ({"strengths": (6,)}, "to 5")],
)
def test_a_mistake_is_one_sentence(wrong, sentence):
    with pytest.raises(BadConfig, match=sentence):
        Shifted(**wrong)
