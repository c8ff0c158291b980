import pytest

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import categories_of, joint_task, share_of, training_images, with_true_labels, without
from iadbe.types import Sample, TrainingLabel

SAMPLES = tuple(Sample(str(i), "c", "train", "good", f"{i}.png") for i in range(4))


def test_all_training_images_get_the_given_label():
    assert [e.label for e in training_images(SAMPLES, TrainingLabel.ANOMALOUS)] == [TrainingLabel.ANOMALOUS] * 4
    assert training_images(SAMPLES)[0].label is TrainingLabel.NORMAL


def test_with_true_labels_gives_each_its_own_label():
    bad = Sample("5", "c", "test", "dent", "5.png")
    shown = Sample("6", "c", "test", "dent", "6.png", "6_mask.png")
    assert [e.label for e in with_true_labels([SAMPLES[0], bad, shown])] == [
        TrainingLabel.NORMAL,
        TrainingLabel.ANOMALOUS,
        TrainingLabel.MASKED,
    ]


def test_without_keeps_the_order_and_goes_by_id():
    twin = Sample("2", "c", "test", "good", "other.png")
    assert [s.id for s in without(SAMPLES, [twin])] == ["0", "1", "3"]


def test_shares_are_counted_as_people_count():
    assert [share_of(share, 100) for share in (0, 0.07, 0.29, 0.299, 1)] == [0, 7, 29, 29, 100]


@pytest.mark.parametrize(
    ("wanted", "present", "name"),
    [
        (("a", "b"), (), "all"),
        (("b", "a"), ("a", "b"), "all"),
        (("b", "a"), ("a", "b", "c"), "b+a"),
        (("a",), ("a",), "a"),
        (("all", "b"), ("all", "b"), "all+b"),
    ],
)
def test_the_task_of_several_categories_leads_back_to_them(wanted, present, name):
    index = Index([Sample(c, c, "train", "good", c) for c in present or wanted])
    assert joint_task(wanted, present) == name
    found = categories_of(name, index)
    assert set(found) == set(wanted)
    assert found == wanted or name == "all"


def test_a_task_of_what_is_not_there_is_one_sentence():
    with pytest.raises(BadConfig, match="no category 'd'"):
        categories_of("c+d", Index(SAMPLES))


def test_images_of_an_excluded_group_are_excluded_too():
    samples = [
        Sample(str(i), "c", "test", "dent" if i < 4 else "good", f"{i}.png", group=f"part{i // 2}") for i in range(8)
    ]
    assert [s.id for s in without(samples, samples[:1])] == list("234567")
    with pytest.raises(BadConfig, match="no defect is left to test: with 2 chosen images or groups"):
        without(samples, [samples[0], samples[2]])
