from random import Random

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.noisy import Noisy
from iadbe.types import TrainingLabel

TOY = Toy()
INDEX = Index(TOY.samples())


def parts(setting, index=INDEX, seed=0):
    (step,) = setting.steps("metal", index, Random(seed))
    shown = [e.sample for e in step.shards[0]]
    assert {e.label for e in step.shards[0]} == {TrainingLabel.NORMAL}
    return [s for s in shown if not s.is_anomaly], [s for s in shown if s.is_anomaly], step.tests["metal"]


@pytest.mark.parametrize(("ratio", "count"), [(0.05, 2), (0.1, 4), (0.15, 6), (0.2, 8), (0, 0)])
def test_a_ratio_of_the_good_images_is_added_and_not_tested(ratio, count):
    good, noise, test = parts(Noisy(ratio))
    assert good == list(INDEX.train("metal"))
    assert len(noise) == count
    assert len(test) + count == len(INDEX.test("metal"))
    assert not set(noise) & set(test)


def test_all_that_is_added_is_defective():
    """open-iad drew by an index into another, shuffled list, so that much of the noise was good."""
    for seed in range(20):
        good, noise, _ = parts(Noisy(0.4), seed=seed)
        assert len(good) == 40
        assert len(noise) == 16


def test_overlap_tests_what_was_learnt():
    _, noise, test = parts(Noisy(0.1, overlap=True))
    assert test == INDEX.test("metal")
    assert set(noise) <= set(test)


def test_the_ratio_may_count_the_noise_too():
    good, noise, _ = parts(Noisy(0.2, of="all"))
    assert len(noise) / (len(good) + len(noise)) == pytest.approx(0.2)


def test_no_more_than_the_cap_is_taken():
    assert len(parts(Noisy(0.9))[1]) == 18  # three quarters of 24
    assert len(parts(Noisy(0.9, cap=0.5))[1]) == 12


def test_a_share_is_counted_as_people_count():
    """0.29 * 100 is a little less than 29 in binary."""
    hundred = Index(Toy(count=100).samples())
    assert len(parts(Noisy(0.29, cap=1), hundred)[1]) == 24
    assert len(parts(Noisy(0.07), hundred)[1]) == 7
    assert len(parts(Noisy(0.29, cap=1, overlap=True), Index([*hundred.samples, *_more(hundred)]))[1]) == 29


def _more(index):
    from dataclasses import replace

    return [replace(s, id=f"{s.id}-twin") for s in index.anomalies("metal")]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Noisy(-0.1), "from 0 to below 1"),
        (lambda: Noisy(1), "from 0 to below 1"),
        (lambda: Noisy(cap=2), "noisy.cap"),
        (lambda: Noisy(of="both"), "good or all"),
        (lambda: parts(Noisy(0.01)), "less than one image"),
        (lambda: parts(Noisy(), Index(INDEX.train("metal"))), "less than one image"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
    with pytest.raises(BadConfig, match=sentence):
        make()
