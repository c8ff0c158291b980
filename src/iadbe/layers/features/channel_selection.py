"""Random selection of feature channels: from all concatenated layers, or as many from each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def random_channels(rng: np.random.Generator, channels: Sequence[int], count: int) -> np.ndarray:
    """Return the indices (count,), rising, of channels drawn uniformly from the concatenated layers.

    ``channels`` holds the number of channels of each layer. At most all of them are returned.
    """
    return np.sort(rng.permutation(sum(channels))[:count])


def balanced_channels(rng: np.random.Generator, channels: Sequence[int], count: int) -> np.ndarray:
    """Return indices (count,) with equal numbers from each layer; what a layer cannot give comes from the next ones."""
    count = min(count, sum(channels))
    shares = [0] * len(channels)
    while sum(shares) < count:
        for layer, available in enumerate(channels):
            if shares[layer] < available and sum(shares) < count:
                shares[layer] += 1
    starts = np.cumsum([0, *channels[:-1]])
    picked = [s + np.sort(rng.permutation(n)[:share]) for s, n, share in zip(starts, channels, shares, strict=True)]
    return np.concatenate(picked)


def shared_generator(rng: np.random.Generator) -> np.random.Generator:
    """Return a generator that follows from the seed of ``rng`` alone, not from what has been drawn from ``rng``.

    Gaussians can be merged only if they are over the same channels. With this generator the clients of one federated
    run, and the steps of one continual run, select the same channels.
    """
    seed = rng.bit_generator.seed_seq
    if not isinstance(seed, np.random.SeedSequence):
        raise ValueError("the generator must come from a seed, as those of numpy.random.default_rng do")
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(1,)))  # a stream beside that of rng
