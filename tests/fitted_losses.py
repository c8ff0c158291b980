"""Fits a detector and listens to the losses that it reports."""

import numpy as np

from iadbe import progress


def fit(detector, train, seed=0):
    """Return the detector, fitted with a generator of this seed, and the loss of every step."""
    losses = []
    with progress.listening(lambda report: losses.append(report.value) if report.phase == "loss" else None):
        detector.fit(train, np.random.default_rng(seed))
    return detector, losses
