from collections import Counter
from random import Random
from statistics import mean

import pytest

from iadbe.dataset import Index
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig
from iadbe.settings.federated import Federated

TOY = Toy()
INDEX = Index(TOY.samples())


def step(task="metal", seed=0, **params):
    (found,) = Federated(**params).steps(task, INDEX, Random(seed))
    return found


def dealt(found):
    return [e.sample for shard in found.shards for e in shard]


@pytest.mark.parametrize("split", ["iid", "dirichlet"])
@pytest.mark.parametrize("joint", [False, True])
def test_all_images_are_dealt_once_and_every_client_has_some(split, joint):
    (task, *_) = Federated(joint=joint).tasks(TOY.categories)
    for seed in range(10):
        found = step(task, seed, split=split, joint=joint, clients=7, alpha=0.1)
        categories = TOY.categories if joint else [task]
        assert sorted(s.id for s in dealt(found)) == sorted(s.id for c in categories for s in INDEX.train(c))
        assert len(found.shards) == 7
        assert all(found.shards)
        assert list(found.tests) == list(categories)


def test_iid_deals_evenly_also_over_several_categories():
    assert [len(s) for s in step(clients=3).shards] == [14, 13, 13]
    found = step("all", clients=3, joint=True)
    sizes = [len(s) for s in found.shards]
    assert max(sizes) - min(sizes) <= 1
    for shard in found.shards:
        counts = Counter(e.sample.category for e in shard)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_images_are_shuffled_before():
    assert step().shards != step(seed=1).shards
    assert set(dealt(step())) == set(dealt(step(seed=1)))


def test_a_smaller_alpha_is_more_uneven():
    def spread(alpha):
        return mean(max(map(len, step(seed=s, split="dirichlet", alpha=alpha).shards)) for s in range(40))

    assert spread(0.1) > spread(1) > spread(100)
    assert spread(100) < 13
    assert len(step(split="dirichlet", alpha=1e-300).shards[0]) >= 1


def test_the_aggregation_is_part_of_the_step():
    plain = step(rounds=3)
    assert (plain.rounds, plain.aggregate, plain.proximal) == (3, "mean", 0.0)
    near = step(aggregate="fedprox", mu=0.5)
    assert (near.aggregate, near.proximal) == ("mean", 0.5)
    assert step(aggregate="median").aggregate == "median"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Federated(clients=1), "at least 2"),
        (lambda: Federated(rounds=0), "at least 2 and federated.rounds at least 1"),
        (lambda: Federated(alpha=0), "federated.alpha is above 0"),
        (lambda: Federated(mu=-1), "federated.mu at least 0"),
        (lambda: Federated(split="even"), "iid or dirichlet"),
        (lambda: Federated(aggregate="mean"), "fedavg, fedprox or median"),
        (lambda: step(clients=41), "metal has 40 good training images"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
    with pytest.raises(BadConfig, match=sentence):
        make()
