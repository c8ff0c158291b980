import numpy as np
import pytest

from iadbe.curves.order_statistics import at_ranks


def drawn(kind, seed=0):
    rng = np.random.default_rng(seed)
    few = rng.integers(-3, 4, 500).astype(kind)  # ties, zeros of both signs
    return [rng.normal(0, 10.0**e, 700).astype(kind) for e in (-30, -2, 0, 5)] + [few, -few, np.zeros(0, kind)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_they_are_those_of_sorted_scores(kind):
    parts = drawn(kind)
    everything = np.sort(np.concatenate(parts))
    ranks = np.linspace(0, everything.size - 1, 100, dtype=int)
    found = at_ranks(lambda: iter(parts), ranks)
    assert found.dtype == kind
    assert np.array_equal(found, everything[ranks])


def test_each_reading_decides_sixteen_bits():
    readings = []

    def parts():
        readings.append(None)
        return iter([np.array([3, 1, 2], np.float32)])

    assert at_ranks(parts, [0, 1, 2, 2]).tolist() == [1, 2, 3, 3]
    assert len(readings) == 2
