"""Parts that were imaged several times."""

from pathlib import Path

import numpy as np
import pytest

from iadbe.acceptance.repeatability import repeatability_of
from iadbe.errors import BadConfig
from iadbe.running.inference import ImageResult


def _results(scores):
    return [
        ImageResult(Path(f"part_{name}_{n}.png"), score, threshold=5.0)
        for name, some in scores.items()
        for n, score in enumerate(some)
    ]


SCORES = {"a": (1, 2, 3, 2), "b": (4, 6, 4, 6), "c": (9, 8, 7, 9), "d": (6, 6, 6, 4), "e": (4, 4, 4, 6, 4)}


def test_zones_and_flips():
    found = repeatability_of(_results(SCORES), r"part_\w")
    assert [part.zone for part in found.parts] == ["accept", "grey", "reject", "reject", "accept"]
    assert [part.flips for part in found.parts] == [False, True, False, True, True]
    assert found.flips == 3
    assert [found.zone(z) for z in ("accept", "grey", "reject")] == [2, 1, 2]
    assert (found.parts[1].lowest, found.parts[1].highest, found.parts[1].found) == (4, 6, 0.5)


def test_the_deviation_is_pooled():
    found = repeatability_of(_results(SCORES), r"part_\w")
    squares = sum(((np.array(s) - np.mean(s)) ** 2).sum() for s in SCORES.values())
    assert found.deviation == pytest.approx(np.sqrt(squares / sum(len(s) - 1 for s in SCORES.values())))


def test_parts_with_one_image_tell_nothing():
    assert len(repeatability_of(_results({"a": (1, 2), "b": (1,)}), r"part_\w").parts) == 1
    with pytest.raises(BadConfig, match="no part has several images"):
        repeatability_of(_results({"a": (1,), "b": (1,)}), r"part_\w")
