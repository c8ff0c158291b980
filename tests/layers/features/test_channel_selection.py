import numpy as np
import pytest

from iadbe.layers.features.channel_selection import balanced_channels, random_channels, shared_generator


def test_random_channels_are_a_fair_draw_without_repetition():
    rng = np.random.default_rng(0)
    drawn = [random_channels(rng, (3, 5), 4) for _ in range(2000)]
    assert all(len(set(d)) == 4 and list(d) == sorted(d) for d in drawn)
    np.testing.assert_allclose(np.bincount(np.concatenate(drawn)) / 2000, 0.5, atol=0.05)


@pytest.mark.parametrize(
    ("count", "shares"), [(3, (1, 1, 1)), (7, (2, 3, 2)), (9, (2, 4, 3)), (11, (2, 5, 4)), (99, (2, 10, 20))]
)
def test_balanced_channels_take_equal_shares_of_the_layers_while_they_last(count, shares):
    drawn = balanced_channels(np.random.default_rng(1), (2, 10, 20), count)
    assert len(set(drawn)) == len(drawn)
    assert tuple(np.histogram(drawn, [0, 2, 12, 32])[0]) == shares


def test_more_channels_than_there_are_gives_all():
    assert random_channels(np.random.default_rng(0), (2, 3), 9).tolist() == [0, 1, 2, 3, 4]


def test_the_shared_generator_follows_from_the_seed_alone():
    rng = np.random.default_rng(3)
    first = shared_generator(rng).integers(2**62)
    rng.integers(10, size=100)
    assert shared_generator(rng).integers(2**62) == first
    assert shared_generator(rng.spawn(1)[0]).integers(2**62) == first
    assert shared_generator(np.random.default_rng(4)).integers(2**62) != first
    assert np.random.default_rng(3).integers(2**62) != first
