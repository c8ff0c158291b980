import numpy as np
import pytest

from iadbe.layers.features.channel_selection import from_all, from_each_layer


def test_from_all_is_a_fair_draw_without_repetition():
    rng = np.random.default_rng(0)
    drawn = [from_all(rng, (3, 5), 4) for _ in range(2000)]
    assert all(len(set(d)) == 4 and list(d) == sorted(d) for d in drawn)
    np.testing.assert_allclose(np.bincount(np.concatenate(drawn)) / 2000, 0.5, atol=0.05)


@pytest.mark.parametrize(
    ("count", "shares"), [(3, (1, 1, 1)), (7, (2, 3, 2)), (9, (2, 4, 3)), (11, (2, 5, 4)), (99, (2, 10, 20))]
)
def test_from_each_layer_takes_equal_shares_while_there_are(count, shares):
    drawn = from_each_layer(np.random.default_rng(1), (2, 10, 20), count)
    assert len(set(drawn)) == len(drawn)
    assert tuple(np.histogram(drawn, [0, 2, 12, 32])[0]) == shares


def test_more_than_there_are_is_all():
    assert from_all(np.random.default_rng(0), (2, 3), 9).tolist() == [0, 1, 2, 3, 4]
