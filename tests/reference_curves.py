"""Reference curves for tests: random maps, and metrics by definition, with one thresholded map per threshold."""

import numpy as np


def regions_of(mask, *, corners=True):
    """Return the pixels of each region of one mask (H, W) by flood fill through eight neighbours, or four."""
    near_by = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if corners or not (i and j)]
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        region, border = [], [left.pop()]
        while border:
            y, x = border.pop()
            region.append((y, x))
            near = {(y + i, x + j) for i, j in near_by} & left
            left -= near
            border += near
        found.append(tuple(np.array(region).T))
    return found


def draw(seed, levels=None, *, heavy=False):
    """Draw maps with a few ragged blobs that touch at corners, some with a hole, the first and third image clean."""
    rng = np.random.default_rng(seed)
    shape = (5, int(rng.integers(7, 13)), int(rng.integers(7, 13)))
    truth = np.zeros(shape, dtype=bool)
    for n in (1, 3, 4):
        for _ in range(int(rng.integers(1, 4))):
            y, x = rng.integers(0, shape[1]), rng.integers(0, shape[2])
            truth[n, y : y + 4, x : x + 4] |= rng.random(truth[n, y : y + 4, x : x + 4].shape) < 0.6
            truth[n, y, x] = True
    truth[4, 1:6, 1:6] = True
    truth[4, 2:5, 2:4] = False
    score = rng.normal(size=shape) + rng.uniform(0, 2) * truth
    score = np.exp(1.5 * score) if heavy else score
    return truth, np.round(score * levels) / levels if levels else score


class Overlap:
    """The mean over regions of the share of a thresholded map in each, regions by flood fill."""

    def __init__(self, truth, *, corners=True):
        self.weight, regions = np.zeros(truth.shape), 0
        for n, mask in enumerate(truth):
            for where in regions_of(mask, corners=corners):
                self.weight[n][where] = 1 / len(where[0])
                regions += 1
        self.weight /= regions

    def __call__(self, cut):
        return (self.weight * cut).sum()
