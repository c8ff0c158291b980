import math

import pytest
import torch

from iadbe.layers.blocks.positional_encoding import sinusoidal_encoding


def test_it_is_the_formula():
    code = sinusoidal_encoding(8, 3, 5)
    assert code.shape == (8, 3, 5)
    for row in range(3):
        for column in range(5):
            for k in range(2):
                wave = 10_000 ** (2 * k / 4)
                found = code[[2 * k, 2 * k + 1, 4 + 2 * k, 5 + 2 * k], row, column].tolist()
                expected = [f(x / wave) for x in (column, row) for f in (math.sin, math.cos)]
                assert found == pytest.approx(expected, abs=1e-6)


def test_every_position_has_a_different_encoding():
    rows = sinusoidal_encoding(16, 20, 30).flatten(1).T
    distance = torch.cdist(rows, rows) + 9 * torch.eye(600)
    assert float(distance.min()) > 0.1


@pytest.mark.parametrize("dim", [0, 6])
def test_other_lengths_are_refused(dim):
    with pytest.raises(ValueError, match="multiple of 4"):
        sinusoidal_encoding(dim, 2, 2)
