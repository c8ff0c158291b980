"""Verdicts on good and defective images."""

from pathlib import Path

import pytest

from iadbe.acceptance.challenge import challenge_of
from iadbe.errors import BadConfig
from iadbe.running.inference import ImageResult


def _result(name, score):
    return ImageResult(Path(name), score, threshold=5.0, look_threshold=4.0)


def test_shares_are_counted():
    good = [_result(f"g{i}", s) for i, s in enumerate((1, 2, 3, 4.5, 6))]
    bad = [
        ("dent", _result("d0", 9)),
        ("dent", _result("d1", 3.5)),
        ("crack", _result("c0", 4.5)),
        ("crack", _result("c1", 8)),
    ]
    found = challenge_of(good, bad)
    assert found.overkill.value == 1 / 5
    assert found.look.value == 2 / 5
    assert found.escape.value == 1 / 4  # what is to be looked at has not escaped
    assert found.escape.low < 0.25 < found.escape.high
    assert [(k.name, k.count, k.passed) for k in found.kinds] == [("crack", 2, 0), ("dent", 2, 1)]
    assert found.kinds[1].lowest.path == Path("d1")
    assert [r.score for r in found.good] == [6, 4.5, 3, 2, 1]
    assert found.bad[0].score == 3.5
    pairs = [(g.score < b.score) + 0.5 * (g.score == b.score) for g in found.good for b in found.bad]
    assert found.auroc == pytest.approx(sum(pairs) / 20)
    assert found.auroc_interval.low < found.auroc < found.auroc_interval.high


@pytest.mark.parametrize(
    ("good", "bad", "word"), [([], [("a", _result("x", 1))], "good"), ([_result("x", 1)], [], "defective")]
)
def test_one_side_alone_is_no_challenge(good, bad, word):
    with pytest.raises(BadConfig, match=f"there is no {word} one"):
        challenge_of(good, bad)
