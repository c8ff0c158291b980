import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe.detectors.autoencoder import Autoencoder
from iadbe.detectors.dfkde import DFKDE
from iadbe.detectors.padim import PaDiM
from iadbe.detectors.patchcore import PatchCore
from iadbe.detectors.stfpm import STFPM
from iadbe.errors import BadDetector
from iadbe.running.federation import aggregated, client_generator, learn
from iadbe.types import Step

IMAGES = parts(9)
SHOWN = batch(parts(4, seed=3))


def clients(*sizes):
    cuts = np.cumsum([0, *sizes])
    return [images(IMAGES[a:b]) for a, b in pairwise(cuts)]


def seeded(seed=0):
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5,)))


def small(kind=Autoencoder, **params):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind is Autoencoder:
            return Autoencoder(size=32, latent=4, **{"epochs": 4, "batch": 4, **params})
        return kind(weights="none", **params)


def scores(detector):
    with torch.no_grad():
        return detector.eval().predict(SHOWN).score


def step(rounds=2, aggregate="mean", proximal=0.0):
    return Step((), {}, rounds, aggregate, proximal)


class TestMerging:
    def test_federated_statistics_are_those_of_all_images(self):
        """PaDiM that never saw two images together has learnt what one PaDiM learns of all."""
        together, apart = small(PaDiM, dims=8), small(PaDiM, dims=8)
        together.fit(images(IMAGES), seeded())
        learn(apart, clients(2, 4, 3), step(), seeded())
        torch.testing.assert_close(scores(apart), scores(together), rtol=1e-3, atol=1e-3)

    def test_a_bank_holds_what_every_client_kept(self):
        detector = small(PatchCore, coreset=0.1)
        learn(detector, clients(3, 6), step(), seeded())
        alone = []
        for number, inputs in enumerate(clients(3, 6)):
            one = small(PatchCore, coreset=0.1)
            one.fit(inputs, client_generator(seeded().bit_generator.seed_seq, 0, number))
            alone.append(one.bank)
        assert torch.equal(detector.bank, torch.cat(alone))

    def test_a_client_does_not_depend_on_who_came_before(self):
        first, second = small(PatchCore, coreset=0.05), small(PatchCore, coreset=0.05)
        learn(first, clients(3, 3), step(), seeded())
        used = seeded()
        used.random(100)
        learn(second, clients(3, 3, 3), step(), used)
        assert torch.equal(first.bank, second.bank[: len(first.bank)])


class TestAveraging:
    def test_it_is_deterministic_and_learns(self):
        before, found = scores(small(loss="l2")), []
        for _ in range(2):
            detector = small(loss="l2", epochs=8, learning_rate=2e-3)
            learn(detector, clients(4, 5), step(rounds=4), seeded())
            found.append(scores(detector))
        assert torch.equal(*found)
        assert found[0].mean() < 0.7 * before.mean()

    def test_one_client_and_one_round_is_ordinary_training(self):
        alone, one = small(), small()
        alone.update(images(IMAGES), client_generator(seeded().bit_generator.seed_seq, 0, 0))
        learn(one, clients(9), step(rounds=1), seeded())
        assert torch.equal(scores(alone), scores(one))

    def test_it_is_fedavg_literally(self):
        """Two rounds by hand: train copies from the common parameters, average them by their images."""
        common = {k: v.clone() for k, v in small().state_dict().items()}
        for round_index in range(2):
            total = {k: torch.zeros_like(v, dtype=torch.float64) for k, v in common.items()}
            for number, inputs in enumerate(clients(3, 6)):
                client = small(epochs=2)  # half of the epochs in each of the two rounds
                client.load_state_dict(common)
                client.update(inputs, client_generator(seeded().bit_generator.seed_seq, round_index, number))
                for name, value in client.state_dict().items():
                    total[name] += value.double() * (len(inputs) / 9)
            common = {k: v.float() for k, v in total.items()}
        detector = small(epochs=4)
        learn(detector, clients(3, 6), step(rounds=2), seeded())
        for name, value in detector.state_dict().items():
            torch.testing.assert_close(value, common[name], rtol=1e-5, atol=1e-7)

    def test_the_epochs_are_shared_by_the_rounds(self, monkeypatch):
        seen = []
        monkeypatch.setattr(Autoencoder, "_error", lambda self, b, shown: seen.append(len(b)) or _flat(self, b))
        for rounds, epochs in ((1, 4), (2, 4), (4, 4), (8, 8)):  # no round is without an epoch
            seen.clear()
            learn(small(epochs=4), clients(4, 4), step(rounds=rounds), seeded())
            assert sum(seen) == 8 * epochs

    def test_more_pull_stays_nearer_to_the_start(self):
        start = small().state_dict()

        def way(mu):
            detector = small(epochs=6, learning_rate=1e-3)
            learn(detector, clients(4, 5), step(rounds=1, proximal=mu), seeded())
            return sum(float((v - start[k]).square().sum()) for k, v in detector.state_dict().items())

        assert way(0) > way(1) > way(100)

    def test_the_frozen_part_stays_to_the_bit_and_the_student_moves(self):
        detector = small(STFPM, backbone="resnet10t", layers=(1, 2), epochs=2)
        before = copy.deepcopy(detector.state_dict())
        learn(detector, clients(4, 5), step(), seeded())
        after = detector.state_dict()
        assert all(torch.equal(after[k], before[k]) for k in after if k.startswith("backbone."))
        assert not all(torch.equal(after[k], before[k]) for k in after if k.startswith("student."))
        assert torch.isfinite(scores(detector)).all()

    def test_a_detector_that_can_do_neither_is_an_error(self):
        with pytest.raises(BadDetector, match="DFKDE can neither merge nor continue"):
            learn(small(DFKDE), clients(4, 5), step(), seeded())


def _flat(detector, batch):
    return detector.network[0].weight.sum() * torch.ones(len(batch), 1, 1)


class TestAggregation:
    STATES = tuple({"w": torch.tensor([float(v), 1.0]), "n": torch.tensor(v)} for v in (1, 2, 6, 100))

    def test_the_mean_is_weighted(self):
        found = aggregated(self.STATES[:2], [1, 3], "mean")
        assert found["w"].tolist() == [1.75, 1.0]

    def test_the_median_ignores_one_that_is_far_off(self):
        assert aggregated(self.STATES[:3], [1, 1, 98], "median")["w"].tolist() == [2.0, 1.0]
        assert aggregated(self.STATES, [1, 1, 1, 1], "median")["w"].tolist() == [4.0, 1.0]

    def test_counters_are_the_first_ones(self):
        assert aggregated(self.STATES, [1, 1, 1, 1], "mean")["n"] == 1

    def test_what_is_equal_everywhere_is_not_rounded(self):
        value = torch.rand(1000, generator=torch.Generator().manual_seed(0))
        found = aggregated([{"w": value}] * 3, [1, 1, 5], "mean")
        assert torch.equal(found["w"], value)

    def test_banks_cannot_be_averaged(self):
        with pytest.raises(BadDetector, match="bank has another shape"):
            aggregated([{"bank": torch.rand(3, 2)}, {"bank": torch.rand(4, 2)}], [1, 1], "mean")


class TestLearningMore:
    """At later steps."""

    def test_a_detector_that_merges_adds_what_is_new_to_what_it_knew(self):
        both, grown = small(PaDiM, dims=8), small(PaDiM, dims=8)
        both.fit(images(IMAGES), seeded())
        grown.fit(images(IMAGES[:4]), seeded())
        grown.update(images(IMAGES[4:]), seeded())
        torch.testing.assert_close(scores(grown), scores(both), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("kind", [Autoencoder, STFPM])
    def test_a_trained_detector_trains_on(self, kind):
        params = {"backbone": "resnet10t", "layers": (1,)} if kind is STFPM else {}
        detector = small(kind, epochs=1, **params)
        detector.fit(images(IMAGES[:4]), seeded())
        other = copy.deepcopy(detector)
        moved = [next(p for p in d.parameters() if p.requires_grad) for d in (detector, other)]
        with torch.no_grad():
            moved[1].add_(0.05)
        for one in (detector, other):
            one.update(images(IMAGES[4:]), seeded(1))
        assert float((moved[1] - moved[0]).detach().mean()) == pytest.approx(0.05, rel=0.5)  # it began where it was
