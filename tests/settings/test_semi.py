from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.semi import Semi
from iadbe.types import Sample, TrainingLabel

INDEX = Index(Toy().samples())


def parts(setting, task="metal", index=INDEX, seed=0):
    (step,) = setting.steps(task, index, Random(seed))
    labelled = [e for e in step.shards[0] if e.label is not TrainingLabel.NORMAL]
    return [e.sample for e in step.shards[0] if e.label is TrainingLabel.NORMAL], labelled, step.tests[task]


def some(defects, masks=True, kinds=2):
    good = [Sample(f"c/{i}", "c", "train", "good", f"{i}.png") for i in range(9)]
    good += [Sample(f"t/{i}", "c", "test", "good", f"t{i}.png") for i in range(3)]
    bad = [
        Sample(f"b/{i}", "c", "test", f"kind{i % kinds}", f"b{i}.png", f"m{i}.png" if masks else None)
        for i in range(defects)
    ]
    return Index([*good, *bad])


def test_n_defects_are_labelled_and_not_tested():
    good, labelled, test = parts(Semi(n=10))
    assert good == list(INDEX.train("metal"))
    assert len(labelled) == 10
    assert {e.sample for e in labelled} | set(test) == set(INDEX.test("metal"))
    assert not {e.sample for e in labelled} & set(test)


def test_every_labelled_image_is_a_defect():
    """open-iad drew by an index into another, shuffled list, so that many of them were good."""
    for seed in range(20):
        _, labelled, _ = parts(Semi(n=18), seed=seed)
        assert all(e.sample.is_anomaly and e.sample.category == "metal" for e in labelled)


def test_overlap_leaves_them_in_the_test():
    _, labelled, test = parts(Semi(n=10, overlap=True))
    assert test == INDEX.test("metal")
    assert len(labelled) == 10


@pytest.mark.parametrize(("masks", "told"), [(True, TrainingLabel.MASKED), (False, TrainingLabel.ANOMALOUS)])
def test_where_there_is_a_mask_it_is_shown(masks, told):
    _, labelled, _ = parts(Semi(n=2), "c", some(8, masks))
    assert [e.label for e in labelled] == [told] * 2


def test_a_category_with_few_defects_is_capped_and_takes_nothing_from_the_next():
    """open-iad wrote the cap back, so that all later categories had as few."""
    few = some(5)
    both = Index([*few.samples, *INDEX.samples])
    setting = Semi(n=10)
    assert len(parts(setting, "c", both)[1]) == 3
    assert len(parts(setting, "metal", both)[1]) == 10


def test_hard_labels_one_kind_and_tests_the_others():
    kinds = set()
    for seed in range(12):
        _, labelled, test = parts(Semi(n=4, hard=True), seed=seed)
        (kind,) = {e.sample.defect for e in labelled}
        kinds.add(kind)
        assert len(labelled) == 4
        assert kind not in {s.defect for s in test}
        assert len({s.defect for s in test}) == 4  # three kinds, and good
    assert len(kinds) > 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Semi(n=0), "at least 1"),
        (lambda: Semi(cap=0), "semi.cap"),
        (lambda: Semi(hard=True, overlap=True), "cannot leave it in"),
        (lambda: parts(Semi(), "c", some(1)), "too few to label"),
        (lambda: parts(Semi(hard=True), "c", some(4, kinds=1)), "needs two kinds"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
    with pytest.raises(BadConfig, match=sentence):
        make()
