"""Which channels of stacked layers are kept, where not all are: drawn from all, or the same share of each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def random_channels(rng: np.random.Generator, channels: Sequence[int], count: int) -> np.ndarray:
    """Return ``count`` indices into the stacked layers, rising, each channel as likely as any other.

    ``channels`` says how many each layer has; no more than all of them are returned.
    """
    return np.sort(rng.permutation(sum(channels))[:count])


def balanced_channels(rng: np.random.Generator, channels: Sequence[int], count: int) -> np.ndarray:
    """Return ``count`` indices, equally many of each layer; what is left over, or does not fit, goes to the next."""
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
    """Return a generator that follows from the seed of ``rng`` alone, however much has been drawn from it.

    Gaussians can be merged only if they are over the same features. So the choice of features is drawn here:
    the clients of one federated run, and the steps of one continual run, make the same choice; another seed
    makes another.
    """
    seed = rng.bit_generator.seed_seq
    if not isinstance(seed, np.random.SeedSequence):
        raise ValueError("the generator must come from a seed, as those of numpy.random.default_rng do")
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(1,)))  # a stream beside that of rng
