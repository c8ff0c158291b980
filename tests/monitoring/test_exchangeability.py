"""The test of exchangeability: its bets are fair, it stays silent without a change, and it finds one."""

import numpy as np
import pytest

from iadbe.monitoring.exchangeability import ALARM, BETS, JUMP, SAMPLE, ChangeDetector
from iadbe.monitoring.reference import reference_of


def _hours(shift, hours=60, images=60, seed=0):
    """Return a detector and the bins of hours whose mean moves by ``shift`` (in standard deviations) each."""
    rng = np.random.default_rng(seed)
    known = reference_of([{"score": float(v)} for v in rng.normal(size=150)]).channels["score"]
    drawn = rng.normal(size=(hours, images)) + shift * np.arange(hours)[:, None]
    bins = [np.bincount([known.bin(v) for v in hour], minlength=len(known.counts)) for hour in drawn]
    return ChangeDetector(known.counts), bins, rng


def _alarm(shift, **more):
    detector, bins, rng = _hours(shift, **more)
    return next((n for n, counts in enumerate(bins) if detector.update(counts, rng) >= ALARM), None)


def test_the_statistic_is_that_of_the_definition():
    detector, bins, _ = _hours(0.05, hours=3, images=8)
    found = [detector.update(counts, np.random.default_rng(n)) for n, counts in enumerate(bins)]
    detector, bins, _ = _hours(0.05, hours=3, images=8)
    past = [b for b, n in enumerate(detector._counts) for _ in range(n)]
    capital, statistic, expected = np.full(len(BETS), 1 / len(BETS)), 0.0, []
    for n, counts in enumerate(bins):
        rng = np.random.default_rng(n)
        order = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        start = capital.sum()
        for bin_, tie in zip(order, rng.random(len(order)), strict=True):
            past.append(bin_)
            p = (np.sum(np.array(past) > bin_) + tie * np.sum(np.array(past) == bin_)) / len(past)
            capital = ((1 - JUMP) * capital + JUMP * capital.sum() / len(BETS)) * (1 + np.array(BETS) * (p - 0.5))
        statistic = (statistic + 1) * capital.sum() / start
        expected.append(statistic)
    assert found == pytest.approx(expected, rel=1e-9)


def test_bets_are_fair():
    detector = ChangeDetector([1])
    shares = (np.arange(2000) + 0.5) / 2000
    for _ in range(3):
        before = list(detector._capital)
        factors = []
        for p in shares:
            detector._capital = list(before)
            factors.append(detector._factor(float(p)))
        assert np.mean(factors) == pytest.approx(1, abs=1e-9)
        assert min(factors) > 0
        detector._factor(0.1)


def test_it_is_silent_without_a_change():
    alarms = [_alarm(0, hours=60, images=20, seed=seed) for seed in range(8)]  # 480 hours; one in 1000 is allowed
    assert sum(a is not None for a in alarms) <= 1


@pytest.mark.parametrize("shift", [0.02, -0.02, 0.2])
def test_it_finds_a_drift_up_or_down(shift):
    hour = _alarm(shift)
    assert hour is not None
    assert abs(hour * shift) < 1.2


def test_a_change_that_is_there_from_the_start_is_found():
    detector, bins, rng = _hours(0, hours=4)
    moved = [np.roll(counts, 6) for counts in bins]
    assert max(detector.update(counts, rng) for counts in moved) > ALARM


def test_large_hours_are_sampled():
    detector = ChangeDetector([10, 10])
    detector.update([5000, 5000], np.random.default_rng(0))
    assert detector._total == 20 + SAMPLE
