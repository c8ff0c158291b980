"""Three verdicts from two thresholds."""

import pytest

from iadbe.runtime.verdict import VERDICTS, verdict_of


@pytest.mark.parametrize(
    ("score", "threshold", "look", "verdict"),
    [
        (2.0, 2.0, 1.0, "reject"),
        (1.999, 2.0, 1.0, "look"),
        (1.0, 2.0, 1.0, "look"),
        (0.999, 2.0, 1.0, "good"),
        (1.5, 2.0, None, "good"),
        (3.0, None, None, ""),
        (float("nan"), 2.0, 1.0, ""),
    ],
)
def test_a_part_gets_the_verdict_of_the_highest_threshold_that_it_reaches(score, threshold, look, verdict):
    assert verdict_of(score, threshold, look) == verdict
    assert verdict in VERDICTS.values()
