import math

import numpy as np
import torch

from iadbe.layers.synthetic.simplex import GRADIENTS, simplex_noise, simplex_octaves


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def direct_noise(x, y, z, table):
    """Simplex noise at one place, corner by corner, as Gustavson writes it."""
    skew = (x + y + z) / 3
    i, j, k = (math.floor(v + skew) for v in (x, y, z))
    shift = (i + j + k) / 6
    rest = [x - (i - shift), y - (j - shift), z - (k - shift)]
    order = sorted(range(3), key=lambda axis: (-rest[axis], axis))  # the largest coordinate first
    corner, total = [0, 0, 0], 0.0
    for number in range(4):
        offset = [rest[axis] - corner[axis] + number / 6 for axis in range(3)]
        left = 0.6 - sum(v * v for v in offset)
        if left > 0:
            where = [i + corner[0], j + corner[1], k + corner[2]]
            index = table[(where[0] + table[(where[1] + table[where[2] % 256]) % 256]) % 256]
            total += left**4 * sum(g * v for g, v in zip(GRADIENTS[index % 12], offset, strict=True))
        if number < 3:
            corner[order[number]] = 1
    return 32 * total


def test_it_is_the_direct_sum_over_four_corners():
    table = torch.rand(2, 256, generator=source()).argsort(1)
    place = torch.rand(2, 50, 3, generator=source(1)) * 40 - 20
    found = simplex_noise(place, table)
    for number in range(2):
        expected = [direct_noise(*p, table[number].tolist()) for p in place[number].tolist()]
        np.testing.assert_allclose(found[number].numpy(), expected, atol=2e-4)


def test_it_is_continuous_has_mean_0_and_stays_within_1():
    table = torch.rand(1, 256, generator=source()).argsort(1)
    place = torch.rand(1, 20_000, 3, generator=source(1)) * 200
    found = simplex_noise(place, table)
    assert abs(float(found.mean())) < 0.02
    assert 0.2 < float(found.std()) < 0.5
    assert float(found.abs().max()) <= 1.05
    nearby = simplex_noise(place + 1e-3, table)
    assert float((nearby - found).abs().max()) < 0.03


def test_octaves_are_summed_with_falling_amplitude_and_grid():
    found = simplex_octaves(2, (3, 5, 7), source(), octaves=3, persistence=0.5, frequency=16)
    table = torch.rand(2, 256, generator=source()).argsort(1)
    expected = torch.zeros(2, 3, 5, 7)
    for d in range(3):
        for y in range(5):
            for x in range(7):
                for octave in range(3):
                    place = torch.tensor([[[x, y, d]]]).expand(2, 1, 3) / (16 / 2**octave)
                    expected[:, d, y, x] += 0.5**octave * simplex_noise(place, table)[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found, simplex_octaves(2, (3, 5, 7), source(), 3, 0.5, 16))
    assert not torch.equal(found[0], found[1])
